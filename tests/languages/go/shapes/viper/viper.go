// Package viper declares what the templates use of github.com/spf13/viper, as its documentation does.
package viper

import "strings"

type Viper struct{}

type DecoderConfigOption func()

func New() *Viper { panic("a shape") }

func (*Viper) SetDefault(key string, value any) { panic("a shape") }

func (*Viper) SetEnvPrefix(in string) { panic("a shape") }

func (*Viper) SetEnvKeyReplacer(r *strings.Replacer) { panic("a shape") }

func (*Viper) AutomaticEnv() { panic("a shape") }

func (*Viper) SetConfigFile(in string) { panic("a shape") }

func (*Viper) SetConfigType(in string) { panic("a shape") }

func (*Viper) ReadInConfig() error { panic("a shape") }

func (*Viper) UnmarshalExact(rawVal any, opts ...DecoderConfigOption) error { panic("a shape") }
