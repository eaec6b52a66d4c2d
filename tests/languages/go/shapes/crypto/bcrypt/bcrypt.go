package bcrypt

import "errors"

const DefaultCost int = 10

var (
	ErrMismatchedHashAndPassword = errors.New("crypto/bcrypt: hashedPassword is not the hash of the given password")
	ErrPasswordTooLong           = errors.New("bcrypt: password length exceeds 72 bytes")
)

func GenerateFromPassword(password []byte, cost int) ([]byte, error) { panic("shape only") }

func CompareHashAndPassword(hashedPassword, password []byte) error { panic("shape only") }

func Cost(hashedPassword []byte) (int, error) { panic("shape only") }
