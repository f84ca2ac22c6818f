//! Configuration of what runs on a node.

use std::path::Path;

use anyhow::{Context, Result};

use super::image::PAUSE;
use super::keys::{Keys, Who};
use super::layout::{Node, PODS};
use super::node::Spec;

/// Where CNI plugins are: Debian's containernetworking-plugins.
pub(crate) const CNI_PLUGINS: &str = "/usr/lib/cni";
pub(super) const CONTAINERD: &str = "containerd.toml";
pub(super) const KUBELET: &str = "kubelet.yaml";
pub(super) const PROXY: &str = "proxy.yaml";

/// Writes all of it into the node's own directory.
pub(super) fn write(spec: &Spec, node: Node, keys: &Keys) -> Result<()> {
    let cni = spec.own.join("cni");
    std::fs::create_dir_all(&cni).with_context(|| format!("cannot create {}", cni.display()))?;
    let write = |file: &Path, text: String| {
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    };
    write(&cni.join("10-pods.conflist"), network(node))?;
    write(&spec.own.join(CONTAINERD), containerd(spec, &cni))?;
    write(&spec.own.join(KUBELET), kubelet(&keys.file("ca.crt")))?;
    write(&spec.own.join(PROXY), proxy(node, &keys.kubeconfig(Who::Proxy)))
}

/// Pods: a veth each, an address of the node's own range. Nodes differ, so that one cluster tells of several networks: of those
/// with endpoints, n2 routes to each pod's own veth; n3 has its pods on a bridge, and hides what they begin themselves
/// behind its address.
fn network(node: Node) -> String {
    let kind = match node {
        Node::N1 | Node::N2 => r#""type": "ptp", "ipMasq": false"#,
        Node::N3 => r#""type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true"#,
    };
    format!(
        r#"{{"cniVersion": "1.0.0", "name": "pods", "plugins": [{{
  {kind}, "mtu": 1500,
  "ipam": {{"type": "host-local", "ranges": [[{{"subnet": "{}"}}]], "routes": [{{"dst": "0.0.0.0/0"}}], "dataDir": "/run/cni-ipam"}}
}}]}}
"#,
        node.pods()
    )
}

fn containerd(spec: &Spec, cni: &Path) -> String {
    let (root, cni, runc) = (spec.own.join("containerd"), cni.display(), spec.programs.runc.display());
    format!(
        "version = 3
root = '{root}'
state = '/run/containerd'
disabled_plugins = ['io.containerd.internal.v1.opt']
[grpc]
  address = '/run/containerd/containerd.sock'
[plugins.'io.containerd.cri.v1.images']
  snapshotter = 'overlayfs'
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = '{PAUSE}'
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true # in a container, as this machine may be one, a process may not lower it
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ['{CNI_PLUGINS}']
    conf_dir = '{cni}'
  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = 'runc'
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
      runtime_type = 'io.containerd.runc.v2'
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
        BinaryName = '{runc}'
        SystemdCgroup = false
",
        root = root.display()
    )
}

fn kubelet(authority: &Path) -> String {
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
authentication: {{anonymous: {{enabled: false}}, x509: {{clientCAFile: {}}}, webhook: {{enabled: true}}}}
authorization: {{mode: Webhook}}
oomScoreAdj: 0
resolvConf: \"\"
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {{memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}}
nodeStatusUpdateFrequency: 4s
volumePluginDir: /var/lib/kubelet/volumeplugins
",
        authority.display()
    )
}

/// Services: by nftables on most nodes, by iptables on the one with the bridge.
fn proxy(node: Node, kubeconfig: &Path) -> String {
    let mode = match node {
        Node::N1 | Node::N2 => "nftables",
        Node::N3 => "iptables",
    };
    format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: {mode}
clientConnection: {{kubeconfig: {}}}
hostnameOverride: {}
clusterCIDR: {PODS}
conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
oomScoreAdj: 0
",
        kubeconfig.display(),
        node.name()
    )
}
