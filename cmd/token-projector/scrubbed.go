package main

import (
	"encoding/json"
	"fmt"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/token-projector/token-projector/projector"
)

// scrubbed is the core of every log: of no line any text reaches the encoder as somebody else wrote it. Client-go logs
// what an API server says, word by word.
type scrubbed struct{ zapcore.Core }

// With implements zapcore.Core.
func (s scrubbed) With(fields []zapcore.Field) zapcore.Core {
	return scrubbed{s.Core.With(scrubFields(fields))}
}

// Check implements zapcore.Core.
func (s scrubbed) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if s.Enabled(e.Level) {
		return checked.AddCore(e, s)
	}
	return checked
}

// Write implements zapcore.Core.
func (s scrubbed) Write(e zapcore.Entry, fields []zapcore.Field) error {
	e.Message = projector.Scrub(e.Message)
	return s.Core.Write(e, scrubFields(fields))
}

func scrubFields(fields []zapcore.Field) []zapcore.Field {
	out := make([]zapcore.Field, len(fields))
	for i, f := range fields {
		out[i] = scrubField(f)
	}
	return out
}

// scrubField keeps numbers and times as they are. All else becomes a text.
func scrubField(f zapcore.Field) zapcore.Field {
	switch f.Type {
	case zapcore.StringType:
		f.String = projector.Scrub(f.String)
		return f
	case zapcore.BoolType, zapcore.DurationType, zapcore.TimeType, zapcore.TimeFullType, zapcore.SkipType, zapcore.NamespaceType,
		zapcore.Float64Type, zapcore.Float32Type, zapcore.Int64Type, zapcore.Int32Type, zapcore.Int16Type, zapcore.Int8Type,
		zapcore.Uint64Type, zapcore.Uint32Type, zapcore.Uint16Type, zapcore.Uint8Type, zapcore.UintptrType:
		return f
	}
	held := zapcore.NewMapObjectEncoder()
	f.AddTo(held) // which asks an error or a Stringer, and survives its panic
	value, ok := held.Fields[f.Key]
	if !ok { // it is many fields, or has failed and says so under another key
		value = held.Fields
	}
	text, ok := value.(string)
	if !ok {
		encoded, err := json.Marshal(value)
		if text = string(encoded); err != nil {
			text = fmt.Sprintf("%T", value)
		}
	}
	return zap.String(f.Key, projector.Scrub(text))
}
