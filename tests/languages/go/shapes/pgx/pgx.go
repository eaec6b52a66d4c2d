// Package pgx has the shapes of the public functions that the templates use, for type checks without the network.
package pgx

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5/pgconn"
)

var ErrNoRows = errors.New("no rows in result set")

type (
	Rows interface {
		Close()
		Err() error
		Next() bool
		Scan(dest ...any) error
	}
	Row              interface{ Scan(dest ...any) error }
	CollectableRow   interface{ Scan(dest ...any) error }
	RowToFunc[T any] func(row CollectableRow) (T, error)
	NamedArgs        map[string]any
	Tx               interface {
		Exec(ctx context.Context, sql string, arguments ...any) (pgconn.CommandTag, error)
		Query(ctx context.Context, sql string, args ...any) (Rows, error)
		QueryRow(ctx context.Context, sql string, args ...any) Row
		Commit(ctx context.Context) error
		Rollback(ctx context.Context) error
	}
)

func CollectRows[T any](rows Rows, fn RowToFunc[T]) ([]T, error) { panic("shape only") }

func CollectExactlyOneRow[T any](rows Rows, fn RowToFunc[T]) (T, error) { panic("shape only") }

func RowToStructByName[T any](row CollectableRow) (T, error) { panic("shape only") }
