//go:build tools

// Package tools pins the last published module that holds the Python language host. It needs another
// version of sdk/v3 than the CLI, hence a module of its own.
package tools

import _ "github.com/pulumi/pulumi/sdk/v3/python/cmd/pulumi-language-python"
