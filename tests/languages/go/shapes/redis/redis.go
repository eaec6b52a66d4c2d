// Package redis declares what the templates use of github.com/redis/go-redis/v9, as its documentation does.
package redis

import (
	"context"
	"errors"
	"time"
)

// Nil is what a command that found nothing fails with.
var Nil = errors.New("redis: nil")

type Client struct{}

type StringCmd struct{}

func (*StringCmd) Bytes() ([]byte, error) { panic("a shape") }

type StatusCmd struct{}

func (*StatusCmd) Err() error { panic("a shape") }

type IntCmd struct{}

func (*IntCmd) Err() error { panic("a shape") }

func (*Client) Get(ctx context.Context, key string) *StringCmd { panic("a shape") }

func (*Client) Set(ctx context.Context, key string, value any, expiration time.Duration) *StatusCmd {
	panic("a shape")
}

func (*Client) Del(ctx context.Context, keys ...string) *IntCmd { panic("a shape") }
