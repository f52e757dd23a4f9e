package controlplane

import (
	"fmt"
	"net"
)

// ports of one attempt. They were free a moment ago; the programs cannot choose for themselves, because each must be told
// where the next one listens.
type ports struct {
	etcdClient, etcdPeer, apiserver string
}

// freePorts holds all listeners until it has every port, so that no port is given twice.
func freePorts() (ports, error) {
	var p ports
	for _, port := range []*string{&p.etcdClient, &p.etcdPeer, &p.apiserver} {
		listener, err := net.Listen("tcp", net.JoinHostPort(loopback, "0"))
		if err != nil {
			return ports{}, fmt.Errorf("find a free port: %w", err)
		}
		defer listener.Close()
		if _, *port, err = net.SplitHostPort(listener.Addr().String()); err != nil {
			return ports{}, fmt.Errorf("find a free port: %w", err)
		}
	}
	return p, nil
}
