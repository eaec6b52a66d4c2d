// Package cobra declares what the templates use of github.com/spf13/cobra, as its documentation does.
package cobra

import (
	"context"
	"io"
)

type PositionalArgs func(cmd *Command, args []string) error

func NoArgs(cmd *Command, args []string) error { panic("a shape") }

func MaximumNArgs(n int) PositionalArgs { panic("a shape") }

type Command struct {
	Use              string
	Short            string
	Args             PositionalArgs
	SilenceErrors    bool
	SilenceUsage     bool
	PersistentPreRun func(cmd *Command, args []string)
	RunE             func(cmd *Command, args []string) error
}

func (*Command) AddCommand(commands ...*Command) { panic("a shape") }

func (*Command) Context() context.Context { panic("a shape") }

func (*Command) ErrOrStderr() io.Writer { panic("a shape") }

func (*Command) ExecuteContext(ctx context.Context) error { panic("a shape") }

func (*Command) InOrStdin() io.Reader { panic("a shape") }

func (*Command) OutOrStdout() io.Writer { panic("a shape") }

func (*Command) PersistentFlags() *FlagSet { panic("a shape") }

// FlagSet is that of github.com/spf13/pflag.
type FlagSet struct{}

func (*FlagSet) BoolVarP(p *bool, name, shorthand string, value bool, usage string) { panic("a shape") }
