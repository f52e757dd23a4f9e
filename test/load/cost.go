package main

import (
	"fmt"
	"time"

	"github.com/prometheus/procfs"
)

// cost is what a process has used until a moment, as /proc has it.
type cost struct {
	at       time.Time
	resident uint64  // VmRSS, bytes
	peak     uint64  // VmHWM, bytes
	cpu      float64 // utime + stime, seconds
	wakes    uint64  // voluntary context switches of all its threads: each is a sleep that ended
}

func costOf(pid int) (cost, error) {
	c := cost{at: time.Now()}
	p, err := procfs.NewProc(pid)
	if err != nil {
		return c, fmt.Errorf("look at process %d: %w", pid, err)
	}
	status, err := p.NewStatus()
	if err != nil {
		return c, fmt.Errorf("look at process %d: %w", pid, err)
	}
	stat, err := p.Stat()
	if err != nil {
		return c, fmt.Errorf("look at process %d: %w", pid, err)
	}
	c.resident, c.peak, c.cpu = status.VmRSS, status.VmHWM, stat.CPUTime()
	threads, err := procfs.AllThreads(pid)
	if err != nil {
		return c, fmt.Errorf("look at the threads of process %d: %w", pid, err)
	}
	for _, t := range threads {
		status, err := t.NewStatus()
		if err != nil {
			continue // it has just ended
		}
		c.wakes += status.VoluntaryCtxtSwitches
	}
	return c, nil
}

// share is the part of one core that was used since an earlier moment.
func (c cost) share(since cost) float64 { return (c.cpu - since.cpu) / c.at.Sub(since.at).Seconds() }

// perMinute is how often it woke up since.
func (c cost) perMinute(since cost) float64 {
	return float64(c.wakes-since.wakes) / c.at.Sub(since.at).Minutes()
}

func mib(bytes uint64) string { return fmt.Sprintf("%.1f", float64(bytes)/(1<<20)) }
