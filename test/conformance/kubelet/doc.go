// Package kubelet holds no code: its tests project the same volumes with the kubelet's own code and with package projector,
// and compare every entry below the volume's directory: content, mode, owner, link, layout.
//
//   - Both sides have the same pod, objects and tokens, from memory. Of the kubelet's, only mounting is faked.
//   - Pods are generated from a seed, and so is what happens to them before they are projected once more. A pod that
//     differs is printed, with its seed: -run TestRandomPods -seed N -pods 1.
//   - A volume that the kubelet refuses is to be refused.
//   - What is otherwise on purpose is in a table, with the reason. It says what ours does instead, which is compared.
//   - An ordinary user compares what it may make: every user and group is its own.
//
// Not compared: podCertificate sources, which ours does not support.
package kubelet
