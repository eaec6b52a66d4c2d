package pgconn

type CommandTag struct{ s string }

func (ct CommandTag) RowsAffected() int64 { panic("shape only") }

type PgError struct {
	Code           string
	ConstraintName string
}

func (pe *PgError) Error() string { return pe.Code }
