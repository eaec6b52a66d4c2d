package micro

import "github.com/nats-io/nats.go"

type (
	Service interface {
		AddEndpoint(name string, handler Handler, opts ...EndpointOpt) error
		AddGroup(name string, opts ...GroupOpt) Group
		Info() Info
		Stop() error
		Stopped() bool
	}
	Group interface {
		AddGroup(name string, opts ...GroupOpt) Group
		AddEndpoint(name string, handler Handler, opts ...EndpointOpt) error
	}
	EndpointOpt func()
	GroupOpt    func()
	Handler     interface{ Handle(Request) }
	HandlerFunc func(Request)
	Headers     nats.Header
	RespondOpt  func(*nats.Msg)
	Request     interface {
		Respond(data []byte, opts ...RespondOpt) error
		RespondJSON(response any, opts ...RespondOpt) error
		Error(code, description string, data []byte, opts ...RespondOpt) error
		Data() []byte
		Headers() Headers
		Subject() string
		Reply() string
	}
	NATSError struct {
		Subject     string
		Description string
	}
	Info   struct{ Name, ID string }
	Config struct {
		Name         string
		Version      string
		Description  string
		Metadata     map[string]string
		QueueGroup   string
		ErrorHandler func(Service, *NATSError)
		DoneHandler  func(Service)
	}
)

func (fn HandlerFunc) Handle(req Request) { fn(req) }

func AddService(nc *nats.Conn, config Config) (Service, error) { panic("shape only") }

func WithEndpointSubject(subject string) EndpointOpt { panic("shape only") }
