// The pod network of a node: the configuration by which containerd gives pods their addresses, and a route to the pods
// of each other node. It follows the Nodes and writes only what has changed.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	account       = "/var/run/secrets/kubernetes.io/serviceaccount/"
	configuration = "/etc/cni/net.d/10-pod-network.conflist"
	// Routes of ours bear it, so that those of nodes that are gone can be told from others.
	protocol = "110"
)

type node struct {
	Metadata struct {
		Name            string
		ResourceVersion string
	}
	Spec   struct{ PodCIDRs []string }
	Status struct {
		Addresses []struct{ Type, Address string }
	}
}

type list struct {
	Metadata struct{ ResourceVersion string }
	Items    []node
}

type event struct {
	Type   string
	Object json.RawMessage
}

func main() {
	self := os.Getenv("NODE_NAME")
	server, err := connect()
	if err != nil {
		log.Fatal(err)
	}
	for _, subnet := range split(os.Getenv("POD_SUBNET")) {
		// What has no pod goes nowhere, least of all out.
		if err := ip("route", "replace", "blackhole", subnet.String(), "proto", protocol); err != nil {
			log.Fatal(err)
		}
	}
	written := network{routes: found()}
	for {
		if err := server.follow(func(nodes map[string]node) error { return written.become(wanted(self, nodes)) }); err != nil {
			log.Print(err)
		}
		// An API server that is away is asked once a second.
		time.Sleep(time.Second)
	}
}

// What the node shall have.
type network struct {
	own    []netip.Prefix
	routes map[netip.Prefix]netip.Addr
}

func wanted(self string, nodes map[string]node) network {
	want := network{routes: map[netip.Prefix]netip.Addr{}}
	for name, each := range nodes {
		pods := split(strings.Join(each.Spec.PodCIDRs, ","))
		if name == self {
			want.own = pods
			continue
		}
		for _, subnet := range pods {
			for _, address := range each.Status.Addresses {
				via, err := netip.ParseAddr(address.Address)
				if err == nil && address.Type == "InternalIP" && via.Is4() == subnet.Addr().Is4() {
					want.routes[subnet] = via
				}
			}
		}
	}
	return want
}

// The routes that an earlier process wrote.
func found() map[netip.Prefix]netip.Addr {
	routes := map[netip.Prefix]netip.Addr{}
	for _, family := range []string{"-4", "-6"} {
		text, err := exec.Command("ip", family, "-json", "route", "show", "proto", protocol).Output()
		var all []struct{ Dst, Gateway string }
		if err != nil || json.Unmarshal(text, &all) != nil {
			continue
		}
		for _, each := range all {
			subnet, bad := netip.ParsePrefix(each.Dst)
			via, worse := netip.ParseAddr(each.Gateway)
			if bad == nil && worse == nil {
				routes[subnet] = via
			}
		}
	}
	return routes
}

// Writes the differences. A route that someone removed stays away until its node changes.
func (have *network) become(want network) error {
	if len(want.own) > 0 && fmt.Sprint(have.own) != fmt.Sprint(want.own) {
		if err := configure(want.own); err != nil {
			return err
		}
		have.own = want.own
		log.Printf("pods here: %v", want.own)
	}
	for subnet := range have.routes {
		if _, stays := want.routes[subnet]; !stays {
			// It may be gone already.
			_ = ip("route", "del", subnet.String(), "proto", protocol)
			delete(have.routes, subnet)
			log.Printf("no route to %v any more", subnet)
		}
	}
	for subnet, via := range want.routes {
		if have.routes[subnet] == via {
			continue
		}
		if err := ip("route", "replace", subnet.String(), "via", via.String(), "proto", protocol); err != nil {
			return err
		}
		have.routes[subnet] = via
		log.Printf("pods at %v: %v", via, subnet)
	}
	return nil
}

// Writes the configuration of the plugins; it appears whole or not at all.
func configure(own []netip.Prefix) error {
	type object = map[string]any
	var ranges [][]object
	var routes []object
	for _, subnet := range own {
		ranges = append(ranges, []object{{"subnet": subnet.String()}})
		everywhere := "0.0.0.0/0"
		if subnet.Addr().Is6() {
			everywhere = "::/0"
		}
		routes = append(routes, object{"dst": everywhere})
	}
	text, err := json.MarshalIndent(object{
		"cniVersion": "0.4.0",
		"name":       "pod-network",
		"plugins": []object{
			{
				"type": "ptp", "ipMasq": true,
				"ipam": object{"type": "host-local", "dataDir": "/run/cni-ipam", "ranges": ranges, "routes": routes},
			},
			{"type": "portmap", "capabilities": object{"portMappings": true}, "snat": true},
		},
	}, "", "  ")
	if err != nil {
		return err
	}
	draft := filepath.Join(filepath.Dir(configuration), ".draft")
	if err := os.WriteFile(draft, append(text, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(draft, configuration)
}

func split(text string) []netip.Prefix {
	var found []netip.Prefix
	for _, word := range strings.Split(text, ",") {
		if subnet, err := netip.ParsePrefix(strings.TrimSpace(word)); err == nil {
			found = append(found, subnet)
		}
	}
	return found
}

func ip(words ...string) error {
	said, err := exec.Command("ip", words...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(words, " "), err, strings.TrimSpace(string(said)))
	}
	return nil
}

type api struct {
	nodes  string
	client *http.Client
}

// Reaches the API server directly where kind says its address, so that nothing waits for kube-proxy.
func connect() (*api, error) {
	endpoint := os.Getenv("CONTROL_PLANE_ENDPOINT")
	if endpoint == "" {
		endpoint = net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT"))
	}
	authority, err := os.ReadFile(account + "ca.crt")
	if err != nil {
		return nil, err
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(authority)
	transport := &http.Transport{
		TLSClientConfig:       &tls.Config{RootCAs: trusted},
		DialContext:           (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 5 * time.Second}).DialContext,
		ResponseHeaderTimeout: 10 * time.Second,
	}
	return &api{"https://" + endpoint + "/api/v1/nodes", &http.Client{Transport: transport}}, nil
}

func (server *api) get(query string) (io.ReadCloser, error) {
	// The token is a new one from time to time.
	token, err := os.ReadFile(account + "token")
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequest(http.MethodGet, server.nodes+query, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+string(token))
	answer, err := server.client.Do(request)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		answer.Body.Close()
		return nil, fmt.Errorf("%s%s: %s", server.nodes, query, answer.Status)
	}
	return answer.Body, nil
}

// Calls act with all Nodes, and again after each change, until the watch ends.
func (server *api) follow(act func(map[string]node) error) error {
	body, err := server.get("")
	if err != nil {
		return err
	}
	var all list
	err = json.NewDecoder(body).Decode(&all)
	body.Close()
	if err != nil {
		return err
	}
	nodes := map[string]node{}
	for _, each := range all.Items {
		nodes[each.Metadata.Name] = each
	}
	if err := act(nodes); err != nil {
		return err
	}
	body, err = server.get("?watch=1&timeoutSeconds=300&resourceVersion=" + all.Metadata.ResourceVersion)
	if err != nil {
		return err
	}
	defer body.Close()
	for changes := json.NewDecoder(body); ; {
		var change event
		if err := changes.Decode(&change); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		var changed node
		if err := json.Unmarshal(change.Object, &changed); err != nil {
			return err
		}
		switch change.Type {
		case "ADDED", "MODIFIED":
			nodes[changed.Metadata.Name] = changed
		case "DELETED":
			delete(nodes, changed.Metadata.Name)
		default:
			return fmt.Errorf("the watch of nodes ended: %s", change.Object)
		}
		if err := act(nodes); err != nil {
			return err
		}
	}
}
