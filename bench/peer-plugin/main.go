// pulumi-docker's code for containers: the Terraform provider for Docker on Pulumi's bridge for such providers.
//
// pulumi-docker's own module names folders of its repository, so that it cannot be built outside of it. This plugin
// has two of its resources: containers, and services of a swarm. It has no schema. So it has a little less to do
// than pulumi-docker, which checks types against its schema.
package main

import (
	"github.com/pulumi/pulumi-terraform-bridge/v3/pkg/tfbridge"
	shim "github.com/pulumi/pulumi-terraform-bridge/v3/pkg/tfshim/sdk-v2"
	"github.com/terraform-providers/terraform-provider-docker/internal/provider"
)

// The version of the Python package that is measured with it (peer_plugin.py).
const version = "5.2.0"

func main() {
	info := tfbridge.ProviderInfo{
		P:       shim.NewProvider(provider.New(version)()),
		Name:    "docker",
		Version: version,
		Resources: map[string]*tfbridge.ResourceInfo{
			"docker_container": {Tok: "docker:index/container:Container", DeleteBeforeReplace: true},
			"docker_service":   {Tok: "docker:index/service:Service"},
		},
	}
	// As pulumi-docker does: a container without a name gets the resource's, with random letters.
	info.SetAutonaming(255, "-")
	tfbridge.Main("docker", version, info, nil)
}
