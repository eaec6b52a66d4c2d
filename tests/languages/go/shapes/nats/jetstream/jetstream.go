package jetstream

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"
)

type (
	JetStreamOpt func()
	JetStream    interface {
		CreateOrUpdateStream(ctx context.Context, cfg StreamConfig) (Stream, error)
	}
	Stream interface {
		CreateOrUpdateConsumer(ctx context.Context, cfg ConsumerConfig) (Consumer, error)
	}
	Consumer interface {
		Consume(handler MessageHandler, opts ...PullConsumeOpt) (ConsumeContext, error)
		Fetch(batch int, opts ...FetchOpt) (MessageBatch, error)
	}
	ConsumeContext interface {
		Stop()
		Drain()
		Closed() <-chan struct{}
	}
	MessageBatch interface {
		Messages() <-chan Msg
		Error() error
	}
	MessageHandler func(msg Msg)
	FetchOpt       func()
	PullConsumeOpt interface{ shape() }
	Msg            interface {
		Metadata() (*MsgMetadata, error)
		Data() []byte
		Headers() nats.Header
		Subject() string
		Reply() string
		Ack() error
		Nak() error
		NakWithDelay(delay time.Duration) error
		InProgress() error
		Term() error
		TermWithReason(reason string) error
	}
	MsgMetadata struct {
		NumDelivered uint64
		NumPending   uint64
		Timestamp    time.Time
		Stream       string
		Consumer     string
	}
	StreamConfig struct {
		Name     string
		Subjects []string
	}
	AckPolicy      int
	ConsumerConfig struct {
		Durable       string
		FilterSubject string
		AckPolicy     AckPolicy
		AckWait       time.Duration
		MaxDeliver    int
		MaxAckPending int
		BackOff       []time.Duration
	}
)

const AckExplicitPolicy AckPolicy = 0

func New(nc *nats.Conn, opts ...JetStreamOpt) (JetStream, error) { panic("shape only") }

func ConsumeErrHandler(cb func(consumeCtx ConsumeContext, err error)) PullConsumeOpt {
	panic("shape only")
}

func PullMaxMessages(max int) PullConsumeOpt { panic("shape only") }
