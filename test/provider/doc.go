// Command provider embeds package projector the way a virtual-kubelet provider
// would: it runs the pods of one node name as plain processes of this machine,
// and mounts their token volumes into them.
//
//		provider run --node-name NODE --kubeconfig FILE --root-dir DIR --state-dir DIR
//		provider read FILE   (a program for containers: records what it reads)
//
//	  - Provider has the methods of virtual-kubelet's PodLifecycleHandler that such
//	    a provider needs; controller calls them as virtual-kubelet does.
//	  - A container is a process in a mount namespace of its own. It sees the
//	    programs of this machine, this program as /provider, and the projected
//	    volumes it mounts, read-only. For an ordinary user it is in a user namespace, too.
//	  - Processes outlive the provider: it may be killed at any time, and its
//	    successor takes them over. What it must know of them is in the state directory.
//	  - An ended process is started anew, as with restartPolicy Always, some time later.
//
// It is for tests and as an example. Other kinds of volumes, subPath, images,
// users, pod status and events are not its subject.
package main
