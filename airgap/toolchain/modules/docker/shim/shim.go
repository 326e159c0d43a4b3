// Package shim hands on the upstream provider, which lies under the internal folder of its module: only a
// module whose path is below upstream's may import it.
package shim

import (
	"github.com/hashicorp/terraform-plugin-sdk/v2/helper/schema"
	"github.com/terraform-providers/terraform-provider-docker/internal/provider"
)

// New is the upstream provider.
func New(version string) *schema.Provider {
	return provider.New(version)()
}
