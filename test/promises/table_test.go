package promises

// promise is what the daemon promises.
type promise struct {
	name, words string
	broken      []mutation
}

// mutation is one way to break a promise: in a file, the text old, which is there exactly once, becomes new. Then the test
// of the folder, or the subtest TEST/SUBTEST, fails.
type mutation struct {
	words        string
	file         string
	old, new     string
	folder, test string
}

var promises = []promise{
	{"P1", "An open by name never fails, tears or mixes; new files appear together", []mutation{
		{"links are made after the swap, as the kubelet does", "atomicwriter/publish.go",
			`	if err := p.link(); err != nil { // 6
		return "link", err
	}
	return "swap", p.swap() // 7`,
			`	if err := p.swap(); err != nil {
		return "swap", err
	}
	return "link", p.link()`,
			"atomicwriter", "TestFaults/added_and_dropped"},
		{"the old link is removed before the new one is in its place", "atomicwriter/links.go",
			`	err = p.d.renameat(tempLink, name, 0)
	if !errors.Is(err, unix.EISDIR) {`,
			`	_ = p.d.unlinkat(p.d.fd, name, 0)
	err = p.d.renameat(tempLink, name, 0)
	if !errors.Is(err, unix.EISDIR) {`,
			"atomicwriter", "TestReaders"},
		{"a replaced version is removed at once", "projector/state.go",
			`staleAge   = 10 * time.Second`, `staleAge   = 0 * time.Second`,
			"projector", "TestStaleVersionsAreSwept"},
	}},
	{"P2", "A token whose requests are answered never expires on disk", []mutation{
		{"refreshed at its expiry, not at 80 %", "rotation/lifetime.go",
			`min(l.TTL()/5*4, MaxAge)`, `min(l.TTL(), MaxAge)`,
			"projector", "TestRenewal"},
		{"retries come no faster as the expiry nears", "rotation/outage.go",
			`max(min(d, remaining/4), firstRetry)`, `max(d, firstRetry)`,
			"rotation", "TestBackoffShortensTowardsExpiry"},
		{"what expires last is asked for first", "rotation/queue.go",
			`h.of[i].deadline < h.of[j].deadline`, `h.of[i].deadline > h.of[j].deadline`,
			"projector", "TestSoonestExpiryFirst"},
	}},
	{"P3", "A failed refresh never removes or damages a token that is there", []mutation{
		{"a refused token is forgotten", "projector/finish.go",
			`		t.suspect = t.suspect || failed.ofServer() && !t.blamed
`, `		t.suspect = t.suspect || failed.ofServer() && !t.blamed
		t.vanish()
`,
			"projector", "TestRefusedRefreshKeepsTheToken"},
		{"another pod's token is taken for an answer", "projector/mint.go",
			`		if err := claims.fits(r); err != nil {
			return refuse(err.Error())
		}
`, "", "projector", "TestMintUnusable"},
		{"a failed publish takes ..data along", "atomicwriter/publish.go",
			`_ = p.d.Remove(tempLink)`, `_ = p.d.Remove(dataLink)`,
			"atomicwriter", "TestFaults/changed"},
	}},
	{"P4", "A restart sends no request and rewrites nothing that is right", []mutation{
		{"what is on disk is due at once", "projector/adopt.go",
			`t.life.DueAdopted(t.seed, first, server)`, `server`,
			"projector", "TestAdoptedTokensKeepTheirTimes"},
		{"the audience that the server chose is not ours", "projector/claims.go",
			`r.Audience != "" && !slices.Equal`, `!slices.Equal`,
			"projector", "TestClaimsFit"},
		{"equal content is written again", "atomicwriter/publish.go",
			`case !p.differs:`, `case false:`,
			"atomicwriter", "TestUnchanged"},
	}},
	{"P5", "Nothing is deleted before the first list, nor at exit, nor what we did not make; a live directory stays", []mutation{
		{"pods that are not known yet are removed", "projector/apply.go",
			`case s.synced && (`, `case (`,
			"projector", "TestNothingRemovedBeforeTheList"},
		{"a root that is not ours is taken", "projector/root.go",
			`	if foreign != "" {`, `	if false {`,
			"projector", "TestOpenRootRefusesForeign"},
		{"a directory that is there is replaced", "projector/root.go",
			`	dir, err := r.dir.Open(volumePath(k))
	if err == nil {
		return dir, nil
	}`, `	var dir *atomicwriter.Dir
	if err := r.removePod(string(k.PodUID)); err != nil {
		return nil, err
	}`,
			"projector", "TestRuntimeDirectoryIsAdopted"},
		{"the pods' directories are removed at exit", "projector/run.go",
			`	r.disk.watch.close()
	r.feeds.Wait()`,
			`	r.disk.watch.close()
	for uid := range r.state.pods {
		_ = r.config.Root.removePod(string(uid))
	}
	r.feeds.Wait()`,
			"test/integration", "TestRestart"},
	}},
	{"P6", "One failing pod, volume, object or hung request delays no other", []mutation{
		{"any refusal is an outage", "projector/finish.go",
			`	ofServer := failed.ofServer()
`, `	ofServer := true
`,
			"projector", "TestRefusedAlone"},
		{"hung requests keep their places until they time out", "projector/finish.go",
			`				s.overtake(j.sent.Mono, failed == nil)
`, "", "projector", "TestHungRequestIsGivenUp"},
		{"a volume that cannot be projected takes its neighbours along", "projector/desired.go",
			`		w.Volumes = append(w.Volumes, desiredVolume(pod, v))
`, `		w.Volumes = append(w.Volumes, desiredVolume(pod, v))
		for i := range w.Volumes {
			if err := w.Volumes[0].Err; err != nil {
				w.Volumes[i].Err = err
			}
		}
`,
			"projector", "TestDesiredFailsAlone"},
	}},
	{"P7", "No token is ever logged, put in an error, a metric, an event or an answer", []mutation{
		{"a token prints itself", "projector/token.go",
			`func (Token) Format(f fmt.State, _ rune) { fmt.Fprint(f, redacted) }`,
			`func (t Token) Format(f fmt.State, _ rune) { f.Write(t.reveal()) }`,
			"projector", "TestTokenNeverPrints"},
		{"foreign text is quoted as it is", "projector/scrub.go",
			`return redacted`, `return found`, "projector", "TestMintRefused"},
		{"the content of a file is logged", "projector/finish.go",
			`s.log.Info("volume published", v.fields()...)`,
			`s.log.Info("volume published", append(v.fields(), zap.ByteString("content", j.files[0].Data))...)`,
			"test/integration", "TestSecretsStaySecret"},
		{"the memory may be dumped", "cmd/token-projector/private.go",
			`unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)`, `error(nil)`,
			"test/integration", "TestMemoryIsPrivate"},
	}},
	{"P8", "Nothing a pod can do makes the daemon touch anything outside its directory, or block", []mutation{
		{"links are followed", "atomicwriter/sys.go",
			`unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV`, `unix.RESOLVE_NO_XDEV`,
			"atomicwriter", "TestOpen"},
		{"mounts are entered", "atomicwriter/sys.go",
			`unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV`, `unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS`,
			"atomicwriter", "TestOpenMount"},
		{"a FIFO in a file's place is opened", "atomicwriter/compare.go",
			`case file && e.typ == unix.DT_REG:`, `case file:`,
			"atomicwriter", "TestOpensNoGarbage"},
	}},
	{"P9", "Cost grows with work done, not with tokens held", []mutation{
		{"a goroutine for each token", "projector/run.go",
			`		m, err := r.config.Mint(ctx, j.mint.request)
`, `		m, err := r.config.Mint(ctx, j.mint.request)
		go func() { <-r.done }()
`,
			"projector", "TestNothingPerToken"},
		{"a ticker for each pod", "projector/dispatch.go",
			`	pause := time.Minute
`, `	pause := time.Minute / time.Duration(1+len(s.pods))
`,
			"projector", "TestNothingPerToken"},
	}},
	{"P10", "Neither a wrong or stepped clock nor a suspended machine lets a token expire unseen", []mutation{
		{"time asleep does not count", "rotation/time.go",
			`max(t.Mono-earlier.Mono, t.Wall.Sub(earlier.Wall), 0)`, `max(t.Mono-earlier.Mono, 0)`,
			"rotation", "TestServerClockElapsed"},
		{"a stepped clock is believed", "rotation/time.go",
			`return c.heard && c.local.apart(local)`, `return false`,
			"projector", "TestDoubtfulClockAsksOnce"},
		{"the wall clock tells the time, not the server", "rotation/time.go",
			`	return c.server.Add(local.Since(c.local))`, `	return local.Wall`,
			"projector", "TestClocks"},
	}},
}
