// Serves the upstream Docker provider to Pulumi as `pulumi-resource-docker`, with the names that Pulumi's
// own SDKs for it use.
package main

import (
	"fmt"

	"github.com/pulumi/pulumi-terraform-bridge/v3/pkg/tfbridge"
	sdkv2 "github.com/pulumi/pulumi-terraform-bridge/v3/pkg/tfshim/sdk-v2"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"
	"github.com/terraform-providers/terraform-provider-docker/shim"
)

// version is that of the Pulumi SDK this plugin stands in for; the build sets it.
var version = "0.0.0"

func main() {
	schema := []byte(fmt.Sprintf(`{"name": "docker", "version": %q}`, version))
	tfbridge.Main("docker", version, providerInfo(), schema)
}

func providerInfo() tfbridge.ProviderInfo {
	return tfbridge.ProviderInfo{
		Name:         "docker",
		Version:      version,
		P:            sdkv2.NewProvider(shim.New(version)),
		MetadataInfo: tfbridge.NewProviderMetadata([]byte("{}")),
		Config:       fields{"registry_auth": {Name: "registryAuth"}},
		Resources: map[string]*tfbridge.ResourceInfo{
			"docker_config": {Tok: resourceToken("serviceConfig", "ServiceConfig")},
			"docker_container": {
				Tok: resourceToken("container", "Container"),
				// A container's name is taken until it is gone.
				DeleteBeforeReplace: true,
				Fields: fields{
					"command":           {Name: "command"},
					"networks_advanced": {Name: "networksAdvanced"},
				},
			},
			"docker_image": {
				Tok:    resourceToken("remoteImage", "RemoteImage"),
				Fields: fields{"name": {Name: "name"}, "build": {Elem: buildBlock()}},
			},
			"docker_network":        {Tok: resourceToken("network", "Network")},
			"docker_plugin":         {Tok: resourceToken("plugin", "Plugin")},
			"docker_registry_image": {Tok: resourceToken("registryImage", "RegistryImage")},
			"docker_secret":         {Tok: resourceToken("secret", "Secret")},
			"docker_service":        {Tok: resourceToken("service", "Service")},
			"docker_tag":            {Tok: resourceToken("tag", "Tag")},
			"docker_volume":         {Tok: resourceToken("volume", "Volume")},
		},
		DataSources: map[string]*tfbridge.DataSourceInfo{
			"docker_image":          {Tok: functionToken("getRemoteImage")},
			"docker_logs":           {Tok: functionToken("getLogs")},
			"docker_network":        {Tok: functionToken("getNetwork")},
			"docker_plugin":         {Tok: functionToken("getPlugin")},
			"docker_registry_image": {Tok: functionToken("getRegistryImage")},
		},
	}
}

type fields = map[string]*tfbridge.SchemaInfo

// buildBlock gives RemoteImage's build the names of later providers, which the SDK knows.
func buildBlock() *tfbridge.SchemaInfo {
	return &tfbridge.SchemaInfo{Fields: fields{
		"path":      {Name: "context"},
		"build_arg": {Name: "buildArgs"},
	}}
}

func resourceToken(module, name string) tokens.Type {
	return tokens.Type("docker:index/" + module + ":" + name)
}

func functionToken(name string) tokens.ModuleMember {
	return tokens.ModuleMember("docker:index/" + name + ":" + name)
}
