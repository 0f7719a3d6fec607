package main

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/ssmsession/ssmsession/internal/crash"
	"github.com/ssmsession/ssmsession/internal/session"
	"github.com/ssmsession/ssmsession/internal/stream"
	"github.com/ssmsession/ssmsession/internal/stream/streamtest"
)

func TestAPanicBesideTheBodyEndsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := streamtest.New(t, stream.Config{})
		r.Open()
		r.Inject(streamtest.Output(0, "$"))
		e := &env{} // without a report: to tell that the session has begun is a panic
		err := (&opening{}).carry(t.Context(), e, r.Channel, func(ctx context.Context, _ session.Peer) error {
			<-ctx.Done()
			return context.Cause(ctx)
		})
		if !errors.As(err, new(*crash.Error)) {
			t.Errorf("the body ends with %v, want the panic", err)
		}
	})
}
