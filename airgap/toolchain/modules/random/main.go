// Serves the upstream random provider to Pulumi as `pulumi-resource-random`, with the names that
// Pulumi's own SDKs for it use.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	pfbridge "github.com/pulumi/pulumi-terraform-bridge/v3/pkg/pf/tfbridge"
	"github.com/pulumi/pulumi-terraform-bridge/v3/pkg/tfbridge"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"
	"github.com/terraform-providers/terraform-provider-random/shim"
)

// version is that of the Pulumi SDK this plugin stands in for; the build sets it.
var version = "0.0.0"

func main() {
	schema := []byte(fmt.Sprintf(`{"name": "random", "version": %q}`, version))
	pfbridge.Main(context.Background(), "random", providerInfo(), pfbridge.ProviderMetadata{PackageSchema: schema})
}

func providerInfo() tfbridge.ProviderInfo {
	return tfbridge.ProviderInfo{
		Name:         "random",
		Version:      version,
		P:            pfbridge.ShimProvider(shim.New()),
		MetadataInfo: tfbridge.NewProviderMetadata([]byte("{}")),
		// Newer than the SDK, which has no classes for them.
		IgnoreMappings: []string{"random_uuid4", "random_uuid7"},
		Resources: map[string]*tfbridge.ResourceInfo{
			"random_bytes":    {Tok: token("randomBytes", "RandomBytes"), ComputeID: bytesID},
			"random_id":       {Tok: token("randomId", "RandomId")},
			"random_integer":  {Tok: token("randomInteger", "RandomInteger")},
			"random_password": {Tok: token("randomPassword", "RandomPassword")},
			"random_pet":      {Tok: token("randomPet", "RandomPet")},
			"random_shuffle":  {Tok: token("randomShuffle", "RandomShuffle")},
			"random_string":   {Tok: token("randomString", "RandomString")},
			"random_uuid":     {Tok: token("randomUuid", "RandomUuid")},
		},
	}
}

func token(module, name string) tokens.Type {
	return tokens.Type("random:index/" + module + ":" + name)
}

// bytesID gives random_bytes the id that it lacks upstream. An id is never secret in Pulumi's state, so it is
// made from a digest of the bytes and not from the bytes themselves.
func bytesID(_ context.Context, state resource.PropertyMap) (resource.ID, error) {
	value := state["base64"]
	for value.IsSecret() {
		value = value.SecretValue().Element
	}
	if !value.IsString() {
		return "", errors.New("random_bytes came back without its base64 text")
	}
	digest := sha256.Sum256([]byte("random_bytes:" + value.StringValue()))
	return resource.ID(hex.EncodeToString(digest[:8])), nil
}
