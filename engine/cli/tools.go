//go:build tools

// Package tools pins the Pulumi CLI, so that `go build` can make it (`go install module@version`
// refuses a module whose go.mod has replace directives).
package tools

import _ "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"
