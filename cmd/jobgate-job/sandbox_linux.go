package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"unsafe"
)

// room is a command's place without a network: namespaces of its own, in which the one address that answers is Jobgate's.
// The command finds it under its own name and port, so that it speaks TLS with Jobgate itself; what it sends goes through a
// listener that was made inside and is served from outside.
type room struct {
	channel *os.File // to the process inside, until it becomes the command
	inside  *os.File
	orders  roomOrders
	dial    string // host:port of Jobgate, as this side reaches it
}

// roomOrders are what the process inside is told.
type roomOrders struct {
	Listen string   `json:"listen"`
	Hosts  string   `json:"hosts"` // a file to stand in for /etc/hosts, "" for none
	Hide   []string `json:"hide"`  // files that hold a CI token
	Path   string   `json:"path"`
	Args   []string `json:"args"`
}

// Capabilities (capabilities(7)) that furnishing a room takes.
const (
	capSetPrivileges = 8  // CAP_SETPCAP
	capBindPort      = 10 // CAP_NET_BIND_SERVICE
	capNetwork       = 12 // CAP_NET_ADMIN
	capMount         = 21 // CAP_SYS_ADMIN
)

// newRoom prepares a room for a session. It refuses what it could not hold.
func newRoom(s *session) (*room, error) {
	target, err := url.Parse(s.jobgate.url)
	if err != nil {
		return nil, fmt.Errorf("--sandbox: %w", err)
	}
	if proxy, err := http.ProxyFromEnvironment(&http.Request{URL: target}); proxy != nil || err != nil {
		return nil, errors.New("--sandbox does not work where Jobgate is reached through a proxy")
	}
	if dir, err := filepath.EvalSymlinks(s.dir); err != nil || strings.HasPrefix(dir+"/", "/run/") {
		return nil, fmt.Errorf("--sandbox hides /run, where the session's folder %s lies; set TMPDIR to another place", s.dir)
	}
	host, port := target.Hostname(), target.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[target.Scheme]
	}
	r := &room{dial: net.JoinHostPort(host, port), orders: roomOrders{Listen: "127.0.0.1:" + port, Hide: tokenFiles(s.source)}}
	switch {
	case host == "::1" || net.ParseIP(host) != nil && !net.ParseIP(host).IsLoopback():
		return nil, fmt.Errorf("--sandbox needs Jobgate's url to have a name, not the address %s", host)
	case !loopback(host):
		r.orders.Hosts = filepath.Join(s.dir, "hosts")
		text := "127.0.0.1 localhost\n127.0.0.1 " + host + "\n"
		if err := os.WriteFile(r.orders.Hosts, []byte(text), 0o600); err != nil {
			return nil, fmt.Errorf("--sandbox: %w", err)
		}
	}
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("--sandbox: make a channel: %w", err)
	}
	r.channel, r.inside = os.NewFile(uintptr(pair[0]), "channel"), os.NewFile(uintptr(pair[1]), "channel")
	return r, nil
}

// tokenFiles are the files of this machine that hold a CI token.
func tokenFiles(s *source) []string {
	var found []string
	for _, p := range append(providers(), s.provider) {
		if info, err := os.Stat(p.from.file); err == nil && info.Mode().IsRegular() {
			found = append(found, p.from.file)
		}
	}
	return found
}

// enter makes a command one that begins inside: as this program, which prepares the namespaces and becomes the command.
func (r *room) enter(cmd *exec.Cmd) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("--sandbox: find this program: %w", err)
	}
	r.orders.Path, r.orders.Args = cmd.Path, cmd.Args
	cmd.Path, cmd.Args = self, []string{"jobgate-job", "inside"}
	cmd.ExtraFiles = []*os.File{r.inside}
	cmd.SysProcAttr = namespaces()
	return nil
}

// namespaces are the room's: its user is who started it, and has every capability over them.
func namespaces() *syscall.SysProcAttr {
	uid, gid := os.Getuid(), os.Getgid()
	attr := &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWIPC,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}},
	}
	if uid != 0 { // another user than root keeps capabilities over exec only as ambient ones
		attr.AmbientCaps = []uintptr{capSetPrivileges, capBindPort, capNetwork, capMount}
	}
	return attr
}

// trySandbox makes namespaces for a moment.
func trySandbox() error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.Command(self, "version")
	cmd.SysProcAttr = namespaces()
	showMemory()
	err = cmd.Run()
	hideMemory()
	if err != nil {
		return sandboxHint(err)
	}
	return nil
}

// open lets the process inside become the command, once what it listens on is served from here; close ends that. Where the
// process inside fails, it has said why and ends, and the channel with it.
func (r *room) open(say func(string, ...any)) (closeRoom func(), err error) {
	_ = r.inside.Close() // the process inside has its own
	defer r.channel.Close()
	raw, err := json.Marshal(r.orders)
	if err != nil {
		return nil, fmt.Errorf("--sandbox: encode the orders: %w", err)
	}
	if _, err := r.channel.Write(raw); err != nil {
		return nil, fmt.Errorf("--sandbox: give the orders: %w", err)
	}
	listener, err := receiveListener(int(r.channel.Fd()))
	if err != nil {
		return nil, err
	}
	closeRoom = serveRoom(listener, r.dial, say)
	if _, err := r.channel.Write([]byte("go")); err != nil {
		closeRoom()
		return nil, fmt.Errorf("--sandbox: start the command: %w", err)
	}
	return closeRoom, nil
}

func receiveListener(fd int) (net.Listener, error) {
	buf, rights := make([]byte, 16), make([]byte, syscall.CmsgSpace(4))
	_, n, _, _, err := syscall.Recvmsg(fd, buf, rights, syscall.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("--sandbox: wait for the process inside: %w", err)
	}
	messages, err := syscall.ParseSocketControlMessage(rights[:n])
	if err != nil || len(messages) != 1 {
		return nil, errors.New("--sandbox: the process inside could not prepare")
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, errors.New("--sandbox: the process inside could not prepare")
	}
	file := os.NewFile(uintptr(fds[0]), "listener")
	defer file.Close() // FileListener has its own
	return net.FileListener(file)
}

// serveRoom carries the room's connections to Jobgate, and nowhere else.
func serveRoom(listener net.Listener, dial string, say func(string, ...any)) (closeRoom func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // closed
			}
			wait.Go(func() { carry(ctx, conn, dial, say) })
		}
	})
	return func() {
		cancel()
		_ = listener.Close()
		wait.Wait()
	}
}

// carry copies both ways until each has ended, or the room is closed.
func carry(ctx context.Context, inner net.Conn, address string, say func(string, ...any)) {
	defer inner.Close()
	dialer := net.Dialer{Timeout: patience}
	outer, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		say("%v", explain(err, address))
		return
	}
	defer outer.Close()
	stop := context.AfterFunc(ctx, func() { _, _ = inner.Close(), outer.Close() })
	defer stop()
	var wait sync.WaitGroup
	half := func(to, from net.Conn) {
		_, _ = io.Copy(to, from) // either end may leave when it likes
		if tcp, ok := to.(*net.TCPConn); ok {
			_ = tcp.CloseWrite()
		}
	}
	wait.Go(func() { half(outer, inner) })
	half(inner, outer)
	wait.Wait()
}

// enterRoom is what runs inside: it prepares the namespaces, gives the listener out, and becomes the command. What goes
// wrong ends it before that.
func enterRoom(_ context.Context, o *options, _ []string) error {
	runtime.LockOSThread() // capabilities are a thread's own, and the command takes those of the thread that becomes it
	const channel = 3
	syscall.CloseOnExec(channel)
	buf := make([]byte, 256<<10)
	n, err := syscall.Read(channel, buf)
	var orders roomOrders
	if err != nil || json.Unmarshal(buf[:max(n, 0)], &orders) != nil || orders.Listen == "" {
		return misuse("inside is started by exec --sandbox")
	}
	if err := furnish(orders); err != nil {
		return fmt.Errorf("--sandbox: %w", err)
	}
	listener, err := net.Listen("tcp4", orders.Listen)
	if err != nil {
		return fmt.Errorf("--sandbox: %w", err)
	}
	file, err := listener.(*net.TCPListener).File()
	if err != nil {
		return fmt.Errorf("--sandbox: %w", err)
	}
	if err := syscall.Sendmsg(channel, []byte("listener"), syscall.UnixRights(int(file.Fd())), nil, 0); err != nil {
		return fmt.Errorf("--sandbox: give the listener: %w", err)
	}
	if n, err := syscall.Read(channel, buf); err != nil || string(buf[:max(n, 0)]) != "go" {
		return errors.New("--sandbox: exec went away")
	}
	if err := dropPrivileges(); err != nil {
		return fmt.Errorf("--sandbox: %w", err)
	}
	err = syscall.Exec(orders.Path, orders.Args, o.env.Vars)
	o.env.say("%s: %v", orders.Args[0], err)
	return exitError(codeOf(err))
}

// furnish brings the loopback interface up, puts a hosts file in place, and hides CI tokens and /run, where the sockets of the machine's
// services are: a container engine's would be a way out.
func furnish(orders roomOrders) error {
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("bring the loopback interface up: %w", err)
	}
	if err := syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	if orders.Hosts != "" {
		if err := syscall.Mount(orders.Hosts, "/etc/hosts", "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("put a hosts file in place: %w", err)
		}
	}
	for _, file := range orders.Hide {
		if err := syscall.Mount("/dev/null", file, "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("hide %s: %w", file, err)
		}
	}
	if err := syscall.Mount("tmpfs", "/run", "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, "size=1m,mode=755"); err != nil {
		return fmt.Errorf("hide /run: %w", err)
	}
	return nil
}

// loopbackUp sets IFF_UP on lo (netdevice(7)).
func loopbackUp() error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	var request struct {
		name  [syscall.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}
	copy(request.name[:], "lo")
	request.flags = syscall.IFF_UP | syscall.IFF_RUNNING
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return errno
	}
	return nil
}

// dropPrivileges takes from this thread, and so from the command, every capability over the new namespaces (capabilities(7),
// the bounding set), and the way to new privileges: the command could take the furniture away otherwise.
func dropPrivileges() error {
	const (
		capabilityDrop  = 24 // PR_CAPBSET_DROP
		noNewPrivileges = 38 // PR_SET_NO_NEW_PRIVS
		ambient         = 47 // PR_CAP_AMBIENT
		ambientClear    = 4  // PR_CAP_AMBIENT_CLEAR_ALL
	)
	if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, ambient, ambientClear, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("clear the ambient capabilities: %w", errno)
	}
	for capability := uintptr(0); capability < 64; capability++ {
		_, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, capabilityDrop, capability, 0)
		if errno == syscall.EINVAL {
			break // beyond the last that this kernel knows
		}
		if errno != 0 {
			return fmt.Errorf("drop capability %d: %w", capability, errno)
		}
	}
	if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, noNewPrivileges, 1, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("set no_new_privs: %w", errno)
	}
	return nil
}

// sandboxHint says what keeps a machine from making namespaces.
func sandboxHint(err error) error {
	return fmt.Errorf("--sandbox cannot be had here: %w. It needs Linux with unprivileged user namespaces: "+
		"in a container, a seccomp profile that allows them (clone with CLONE_NEWUSER); on Ubuntu, sysctl kernel.apparmor_restrict_unprivileged_userns=0", err)
}
