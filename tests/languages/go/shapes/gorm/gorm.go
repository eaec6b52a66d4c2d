// Package gorm declares what the templates use of gorm.io/gorm, as its documentation does.
package gorm

import (
	"context"
	"errors"
)

var (
	ErrRecordNotFound = errors.New("record not found")
	ErrDuplicatedKey  = errors.New("duplicated key not allowed")
)

type DB struct {
	Error        error
	RowsAffected int64
}

func (*DB) WithContext(ctx context.Context) *DB { panic("a shape") }

func (*DB) AutoMigrate(models ...any) error { panic("a shape") }

func (*DB) Create(value any) *DB { panic("a shape") }

func (*DB) First(into any, conditions ...any) *DB { panic("a shape") }

func (*DB) Where(query any, args ...any) *DB { panic("a shape") }

func (*DB) Order(value any) *DB { panic("a shape") }

func (*DB) Limit(limit int) *DB { panic("a shape") }

func (*DB) Find(into any, conditions ...any) *DB { panic("a shape") }

func (*DB) Model(value any) *DB { panic("a shape") }

func (*DB) Select(query any, args ...any) *DB { panic("a shape") }

func (*DB) Omit(columns ...string) *DB { panic("a shape") }

func (*DB) Updates(values any) *DB { panic("a shape") }

func (*DB) Delete(value any, conditions ...any) *DB { panic("a shape") }
