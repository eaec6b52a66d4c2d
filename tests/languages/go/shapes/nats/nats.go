// Package nats has the shapes of the public functions that the templates use, for type checks without the network.
package nats

import "time"

const DefaultURL = "nats://127.0.0.1:4222"

type Header map[string][]string

type Msg struct {
	Subject string
	Reply   string
	Header  Header
	Data    []byte
	Sub     *Subscription
}

func (m *Msg) Respond(data []byte) error { panic("shape only") }

type Subscription struct {
	Subject string
	Queue   string
}

func (s *Subscription) Drain() error { panic("shape only") }

func (s *Subscription) SetPendingLimits(msgLimit, bytesLimit int) error { panic("shape only") }

type (
	Option         func(*Options) error
	Options        struct{}
	MsgHandler     func(msg *Msg)
	ConnHandler    func(*Conn)
	ConnErrHandler func(*Conn, error)
	ErrHandler     func(*Conn, *Subscription, error)
	Conn           struct{}
)

func Connect(url string, options ...Option) (*Conn, error) { panic("shape only") }

func Name(name string) Option { panic("shape only") }

func MaxReconnects(max int) Option { panic("shape only") }

func DrainTimeout(t time.Duration) Option { panic("shape only") }

func ClosedHandler(cb ConnHandler) Option { panic("shape only") }

func ErrorHandler(cb ErrHandler) Option { panic("shape only") }

func (nc *Conn) Close() {}

func (nc *Conn) Drain() error { panic("shape only") }

func (nc *Conn) FlushTimeout(timeout time.Duration) error { panic("shape only") }

func (nc *Conn) QueueSubscribe(subj, queue string, cb MsgHandler) (*Subscription, error) {
	panic("shape only")
}

func (s *Subscription) SetClosedHandler(handler func(subject string)) {}
