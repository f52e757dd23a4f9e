package cases

import (
	"bufio"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// commands: kubectl, and what it wants to know of a server before it does anything. It is of the release that the go.mod of
// test/conformance names: an installed one may be of any age, and prints otherwise.
func commands() []Case {
	var out []Case
	for _, c := range slices.Concat(kubectlObjects(), kubectlChanges(), kubectlTokens(), kubectlDiffers()) {
		out = append(out, Case{Group: "kubectl", Name: c.name, Kubectl: true, Differs: c.differs, RealOnly: c.realOnly, Run: withKubectl(c.run)})
	}
	return slices.Concat(out, apiDiscovery(), fieldValidation())
}

type kubectlCase struct {
	name, differs, realOnly string
	run                     func(*kubectl)
}

const podManifest = `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"web"},"spec":{"containers":[{"name":"app","image":"none.invalid/app"}]}}`

func kubectlObjects() []kubectlCase { return append(kubectlWrites(), kubectlReads()...) }

func kubectlWrites() []kubectlCase {
	return []kubectlCase{
		{name: "create, get and delete of a service account", run: func(k *kubectl) {
			k.prints("serviceaccount/robot created\n", "create serviceaccount robot")
			k.prints("serviceaccount/robot\n", "get sa robot -o name")
			k.prints("serviceaccount \"robot\" deleted from NS namespace\n", "delete sa robot")
			k.fails("Error from server (NotFound): serviceaccounts \"robot\" not found\n", "get sa robot")
		}},
		{name: "create, get and delete of a configmap", run: func(k *kubectl) {
			k.prints("configmap/conf created\n", "create configmap conf --from-literal=a=b")
			k.prints("b", "get cm conf -o jsonpath={.data.a}")
			k.fails("error: failed to create configmap: configmaps \"conf\" already exists\n", "create configmap conf")
			k.prints("configmap \"conf\" deleted from NS namespace\n", "delete cm conf")
			k.fails("Error from server (NotFound): configmaps \"conf\" not found\n", "delete cm conf")
		}},
		{name: "create -f, get and delete of a pod, which waits until it is gone", run: func(k *kubectl) {
			k.wantEqual("create", k.run(podManifest, "create", "-f", "-"), printed{Stdout: "pod/web created\n"})
			k.prints("pod/web\n", "get pods -o name --field-selector=spec.serviceAccountName=default")
			k.prints("pod \"web\" deleted from NS namespace\n", "delete pod web")
			k.prints("", "get pods -o name")
		}},
		{name: "delete --force of a pod on a node", run: func(k *kubectl) {
			k.createPod(k.newPod("web", k.createNode("n").Name))
			k.wantEqual("delete", k.run("", "delete", "pod", "web", "--force"), printed{
				Stdout: "pod \"web\" force deleted from NS namespace\n",
				Stderr: "Warning: Immediate deletion does not wait for confirmation that the running resource has been terminated. The resource may continue to run on the cluster indefinitely.\n"})
			k.prints("", "get pods -o name")
		}},
		{name: "create, get and delete of a namespace, which waits until it is gone", run: func(k *kubectl) {
			k.prints("namespace/NS-b created\n", "create namespace "+k.NS+"-b")
			k.prints("Active", "get ns "+k.NS+"-b -o jsonpath={.status.phase}")
			k.prints("namespace \"NS-b\" deleted\n", "delete namespace "+k.NS+"-b")
			k.fails("Error from server (NotFound): namespaces \"NS-b\" not found\n", "get ns "+k.NS+"-b")
		}},
	}
}

func kubectlReads() []kubectlCase {
	return []kubectlCase{
		{name: "get -o yaml is the object", run: getYAML},
		{name: "get -o name of all of a category, and of several resources", run: func(k *kubectl) {
			k.createPod(k.newPod("web", ""))
			k.prints("pod/web\n", "get all -o name")
			k.prints("pod/web\nconfigmap/kube-root-ca.crt\nserviceaccount/default\n", "get pods,configmaps,sa -o name")
		}},
		{name: "get -w prints each change", run: getWatch},
		{name: "wait until a pod is gone, or has a label", run: func(k *kubectl) {
			k.createPod(k.newPod("web", ""))
			k.prints("pod/web labeled\n", "label pod web tier=front")
			k.prints("pod/web condition met\n", "wait pod/web --for=jsonpath={.metadata.labels.tier}=front --timeout=30s")
			k.prints("pod \"web\" deleted from NS namespace\n", "delete pod web --wait=false")
			k.prints("", "wait pod/web --for=delete --timeout=30s")
		}},
		{name: "api-resources with their short names", run: func(k *kubectl) {
			got := k.run("", "api-resources", "--api-group=", "--no-headers")
			for _, want := range []string{"configmaps cm v1 true ConfigMap", "namespaces ns v1 false Namespace", "secrets v1 true Secret"} {
				if !strings.Contains(strings.Join(strings.Fields(got.Stdout), " "), want) {
					k.Errorf("no %q in %s%s", want, got.Stdout, got.Stderr)
				}
			}
		}},
		{name: "version says v1.37.0", run: func(k *kubectl) {
			if got := k.run("", "version"); got.Code != 0 || !strings.Contains(got.Stdout, "Server Version: v1.37.0\n") {
				k.Errorf("got %+v", got)
			}
		}},
		{name: "auth whoami is the administrator", run: func(k *kubectl) {
			k.prints("cases-admin", "auth whoami -o jsonpath={.status.userInfo.username}")
			k.prints(`["system:masters","system:authenticated"]`, "auth whoami -o jsonpath={.status.userInfo.groups}")
		}},
	}
}

func getYAML(k *kubectl) {
	want := k.createPod(k.newPod("web", ""))
	var got corev1.Pod
	k.must(yaml.UnmarshalStrict([]byte(k.run("", "get", "pod", "web", "-o", "yaml").Stdout), &got))
	want.ManagedFields, want.TypeMeta = nil, metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}
	got.Namespace = strings.ReplaceAll(got.Namespace, "NS", k.NS)
	k.wantEqual("the pod", got, *want)
}

// getWatch ends the command by its process, as whoever sits before a terminal does.
func getWatch(k *kubectl) {
	ctx, cancel := context.WithTimeout(k.Ctx, kubectlTimeout)
	defer cancel()
	k.prints("configmap/conf created\n", "create configmap conf --from-literal=a=1")
	cmd := k.command(ctx, "get", "configmap", "conf", "-w", "-o", `jsonpath={.data.a}{"\n"}`)
	stdout, err := cmd.StdoutPipe()
	k.must(err)
	k.must(cmd.Start())
	lines := bufio.NewScanner(stdout)
	next := func() string { lines.Scan(); return lines.Text() }
	k.wantEqual("at first", next(), "1")
	k.prints("configmap/conf patched\n", `patch configmap conf -p {"data":{"a":"2"}}`)
	k.wantEqual("after the change", next(), "2")
	k.must(cmd.Process.Kill())
	_ = cmd.Wait() // how it ended is ours
}

func kubectlChanges() []kubectlCase {
	return []kubectlCase{
		{name: "run makes a pod", run: func(k *kubectl) {
			k.prints("pod/web created\n", "run web --image=none.invalid/app")
			k.prints("web", "get pod web -o jsonpath={.metadata.labels.run}")
		}},
		{name: "label and annotate", run: func(k *kubectl) {
			k.prints("serviceaccount/default labeled\n", "label sa default a=b")
			k.prints("serviceaccount/default\n", "get sa -o name -l a=b")
			k.fails("error: 'a' already has a value (b), and --overwrite is false\n", "label sa default a=c")
			k.prints("serviceaccount/default annotated\n", "annotate sa default a=b")
			k.prints("serviceaccount/default unlabeled\n", "label sa default a-")
			k.prints("", "get sa -o name -l a")
		}},
		{name: "patch of each type", run: func(k *kubectl) {
			k.prints("configmap/conf created\n", "create configmap conf --from-literal=a=1")
			k.prints("configmap/conf patched\n", `patch cm conf --type=strategic -p {"data":{"b":"2"}}`)
			k.prints("configmap/conf patched\n", `patch cm conf --type=merge -p {"data":{"a":null}}`)
			k.prints("configmap/conf patched\n", `patch cm conf --type=json -p [{"op":"add","path":"/data/c","value":"3"}]`)
			k.prints(`{"b":"2","c":"3"}`, "get cm conf -o jsonpath={.data}")
			k.prints("configmap/conf patched (no change)\n", `patch cm conf -p {"data":{"b":"2"}}`)
		}},
		{name: "apply creates, configures and finds nothing to do", run: func(k *kubectl) {
			manifest := `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"conf"},"data":{"a":"%s"}}`
			for _, step := range [][2]string{{"1", "created"}, {"2", "configured"}, {"2", "unchanged"}} {
				k.wantEqual(step[1], k.run(fmt.Sprintf(manifest, step[0]), "apply", "-f", "-"), printed{Stdout: "configmap/conf " + step[1] + "\n"})
			}
		}},
		{name: "replace and delete -f", run: func(k *kubectl) {
			k.createPod(k.newPod("web", ""))
			conf := `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"conf"}}`
			k.wantEqual("replace", k.run(conf, "replace", "-f", "-"), printed{Stderr: "Error from server (NotFound): error when replacing \"STDIN\": configmaps \"conf\" not found\n", Code: 1})
			k.wantEqual("create", k.run(conf, "create", "-f", "-"), printed{Stdout: "configmap/conf created\n"})
			k.wantEqual("replace", k.run(conf, "replace", "-f", "-"), printed{Stdout: "configmap/conf replaced\n"})
			k.wantEqual("delete", k.run(conf, "delete", "-f", "-"), printed{Stdout: "configmap \"conf\" deleted from NS namespace\n"})
		}},
		{name: "create -f of an unknown field is refused, and warned of with --validate=warn", run: createOdd},
		{name: "create --dry-run=client makes nothing", run: func(k *kubectl) {
			k.prints("configmap/conf created (dry run)\n", "create configmap conf --dry-run=client")
			k.fails("Error from server (NotFound): configmaps \"conf\" not found\n", "get cm conf")
		}},
	}
}

func createOdd(k *kubectl) {
	odd := strings.Replace(podManifest, `"spec":{`, `"spec":{"hostNetwrok":true,`, 1)
	k.wantEqual("strict", k.run(odd, "create", "-f", "-"), printed{
		Stderr: "Error from server (BadRequest): error when creating \"STDIN\": Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: unknown field \"spec.hostNetwrok\"\n", Code: 1})
	k.wantEqual("warn", k.run(odd, "create", "-f", "-", "--validate=warn"), printed{
		Stdout: "pod/web created\n", Stderr: "Warning: unknown field \"spec.hostNetwrok\"\n"})
	k.wantEqual("ignore", k.run(strings.Replace(odd, "web", "web2", 1), "create", "-f", "-", "--validate=ignore"), printed{Stdout: "pod/web2 created\n"})
}

func kubectlTokens() []kubectlCase {
	return []kubectlCase{
		{name: "create token is an hour for the API", run: func(k *kubectl) {
			c := k.token("create token default")
			k.wantEqual("subject", c.Subject, "system:serviceaccount:"+k.NS+":default")
			k.wantEqual("audience", []string(c.Audience), Usual.Issuers)
			k.wantEqual("lifetime", c.lifetime(), time.Hour)
		}},
		{name: "create token --duration --audience", run: func(k *kubectl) {
			c := k.token("create token default --duration=11m --audience=vault --audience=other")
			k.wantEqual("audience", []string(c.Audience), []string{"vault", "other"})
			k.wantEqual("lifetime", c.lifetime(), 11*time.Minute)
		}},
		{name: "create token bound to a pod, by name and by UID", run: func(k *kubectl) {
			pod := k.createPod(k.newPod("web", ""))
			const bound = "create token default --bound-object-kind=Pod --bound-object-name=web"
			for _, line := range []string{bound, bound + " --bound-object-uid=" + string(pod.UID)} {
				k.wantEqual(line, k.token(line).Kubernetes.Pod, boundInToken{"web", string(pod.UID)})
			}
			k.fails("error: failed to create token: Operation cannot be fulfilled on Pod \"web\": the UID in the bound object reference (none) does not match the UID in record. "+
				"The object might have been deleted and then recreated\n", bound+" --bound-object-uid=none")
			k.fails("error: failed to create token: pods \"web2\" not found\n", bound+"2")
		}},
		{name: "create token bound to a secret", run: func(k *kubectl) {
			k.prints("secret/s created\n", "create secret generic s")
			secret, err := k.Client.CoreV1().Secrets(k.NS).Get(k.Ctx, "s", metav1.GetOptions{})
			k.must(err)
			c := k.token("create token default --bound-object-kind=Secret --bound-object-name=s")
			k.wantEqual("bound to", c.Kubernetes.Secret, boundInToken{"s", string(secret.UID)})
		}},
		{name: "create token bound to a node", run: func(k *kubectl) {
			node := k.createNode("n")
			c := k.token("create token default --bound-object-kind=Node --bound-object-name=" + node.Name)
			k.wantEqual("bound to", c.Kubernetes.Node, boundInToken{node.Name, string(node.UID)})
		}},
		{name: "create token -o yaml is the TokenRequest", run: func(k *kubectl) {
			var tr authenticationv1.TokenRequest
			k.must(yaml.UnmarshalStrict([]byte(k.run("", "create", "token", "default", "--duration=20m", "-o", "yaml").Stdout), &tr))
			k.wantEqual("kind", tr.GroupVersionKind(), authenticationv1.SchemeGroupVersion.WithKind("TokenRequest"))
			k.wantEqual("name", tr.Name, "default")
			k.wantEqual("expirationSeconds", *tr.Spec.ExpirationSeconds, int64(1200))
			if left := tr.Status.ExpirationTimestamp.Sub(k.Now()); tr.Status.Token == "" || left < 19*time.Minute || left > 20*time.Minute {
				k.Errorf("a token of %d bytes that expires in %v", len(tr.Status.Token), left)
			}
		}},
		{name: "create token of a missing account, or for too short a time, fails", run: func(k *kubectl) {
			k.fails("error: failed to create token: serviceaccounts \"missing\" not found\n", "create token missing")
			k.fails("error: failed to create token: TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 599: "+
				"may not specify a duration less than 10 minutes\n", "create token default --duration=599s")
		}},
	}
}

func kubectlDiffers() []kubectlCase {
	return []kubectlCase{
		{name: "get prints the columns of the kind", differs: "the fake has no Table, so that kubectl prints NAME and AGE", run: func(k *kubectl) {
			k.createPod(k.newPod("web", ""))
			got := k.run("", "get", "pods")
			k.wantEqual("header", strings.Fields(strings.SplitN(got.Stdout, "\n", 2)[0]), []string{"NAME", "READY", "STATUS", "RESTARTS", "AGE"})
		}},
		{name: "create --dry-run=server says what would be", differs: "the fake refuses dry runs, so that nobody believes them", run: func(k *kubectl) {
			k.prints("configmap/conf created (server dry run)\n", "create configmap conf --dry-run=server")
			k.fails("Error from server (NotFound): configmaps \"conf\" not found\n", "get cm conf")
		}},
		{name: "apply --server-side", differs: "the fake has no managed fields, which server-side apply is about", run: func(k *kubectl) {
			conf := `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"conf"}}`
			k.wantEqual("apply", k.run(conf, "apply", "--server-side", "-f", "-"), printed{Stdout: "configmap/conf serverside-applied\n"})
		}},
		{name: "auth can-i", realOnly: "the fake has no general RBAC", run: func(k *kubectl) { k.prints("yes\n", "auth can-i list pods") }},
	}
}
