// Package shim hands on the upstream provider, which lies under the internal folder of its module: only a
// module whose path is below upstream's may import it.
package shim

import (
	framework "github.com/hashicorp/terraform-plugin-framework/provider"
	"github.com/terraform-providers/terraform-provider-random/internal/provider"
)

// New is the upstream provider.
func New() framework.Provider {
	return provider.New()
}
