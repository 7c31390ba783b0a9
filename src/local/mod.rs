//! A control plane (etcd and kube-apiserver) on this machine: for the tests and `tsdp demo --kubernetes`.
