// Package envconfig declares what the templates use of github.com/kelseyhightower/envconfig, as its documentation does.
package envconfig

func Process(prefix string, spec any) error { panic("a shape") }

func Usage(prefix string, spec any) error { panic("a shape") }
