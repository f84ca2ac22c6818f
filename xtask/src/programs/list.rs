//! Which programs there are, and what they are built from.

use super::{Module, Program};

static OF_KUBERNETES: Module = Module {
    name: "kubernetes",
    version: "1.36.3",
    go_mod: include_str!("go/kubernetes/go.mod"),
    go_sum: include_str!("go/kubernetes/go.sum"),
    tags: "",
    set: &[
        ("k8s.io/component-base/version.gitVersion", "v1.36.3"),
        ("k8s.io/component-base/version.gitMajor", "1"),
        ("k8s.io/component-base/version.gitMinor", "36"),
    ],
};
static OF_ETCD: Module = Module {
    name: "etcd",
    version: "3.6.16",
    go_mod: include_str!("go/etcd/go.mod"),
    go_sum: include_str!("go/etcd/go.sum"),
    tags: "",
    set: &[],
};
static OF_CONTAINERD: Module = Module {
    name: "containerd",
    version: "2.3.7",
    go_mod: include_str!("go/containerd/go.mod"),
    go_sum: include_str!("go/containerd/go.sum"),
    tags: "no_btrfs no_devmapper no_zfs no_aufs",
    set: &[("github.com/containerd/containerd/v2/version.Version", "v2.3.7")],
};
static OF_HELM: Module = Module {
    name: "helm",
    version: "4.2.3",
    go_mod: include_str!("go/helm/go.mod"),
    go_sum: include_str!("go/helm/go.sum"),
    tags: "",
    set: &[("helm.sh/helm/v4/internal/version.version", "v4.2.3")],
};

const fn kubernetes(name: &'static str, package: &'static str, any: bool) -> Program {
    Program { name, module: &OF_KUBERNETES, package, any }
}

const fn containerd(name: &'static str, package: &'static str) -> Program {
    // A machine's own may be too old for this kubelet.
    Program { name, module: &OF_CONTAINERD, package, any: false }
}

pub(crate) const ETCD: Program =
    Program { name: "etcd", module: &OF_ETCD, package: "go.etcd.io/etcd/server/v3", any: true };
pub(crate) const APISERVER: Program = kubernetes("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", true);
pub(crate) const KUBECTL: Program = kubernetes("kubectl", "k8s.io/kubernetes/cmd/kubectl", true);
// These must fit each other.
pub(crate) const CONTROLLER_MANAGER: Program =
    kubernetes("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager", false);
pub(crate) const SCHEDULER: Program = kubernetes("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler", false);
pub(crate) const KUBELET: Program = kubernetes("kubelet", "k8s.io/kubernetes/cmd/kubelet", false);
pub(crate) const PROXY: Program = kubernetes("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy", false);
pub(crate) const CONTAINERD: Program = containerd("containerd", "github.com/containerd/containerd/v2/cmd/containerd");
pub(crate) const SHIM: Program =
    containerd("containerd-shim-runc-v2", "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2");
pub(crate) const CTR: Program = containerd("ctr", "github.com/containerd/containerd/v2/cmd/ctr");
pub(crate) const HELM: Program =
    Program { name: "helm", module: &OF_HELM, package: "helm.sh/helm/v4/cmd/helm", any: true };
