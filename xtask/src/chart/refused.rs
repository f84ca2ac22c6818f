//! Values that the chart refuses before anything is sent to a server.

use anyhow::{Result, ensure};

use super::helm::Helm;

/// What is set, and part of what helm then says.
const REFUSED: &[(&str, &str)] = &[
    ("agents.guePort=1", "additional properties 'agents' not allowed"),
    ("agent.interface=eth0", "additional properties 'interface' not allowed"),
    ("agent.interfaces={eth0/1}", "'/agent/interfaces/0'"),
    ("agent.xdpMode=fast", "'/agent/xdpMode'"),
    ("agent.guePort=65536", "'/agent/guePort'"),
    ("agent.directors={somewhere}", "'/agent/directors/0'"),
    ("agent.metricsDetail=flow", "'/agent/metricsDetail'"),
    ("agent.metricsAddress=:9478", "'/agent/metricsAddress'"),
    ("agent.capacity.services=0", "'/agent/capacity/services'"),
    ("agent.maxUnavailable=0", "'/agent/maxUnavailable'"),
    ("agent.maxUnavailable=many", "'/agent/maxUnavailable'"),
    ("agent.tolerations[0].operator=Is", "'/agent/tolerations/0/operator'"),
    ("agent.extraEnv[0].value=x", "missing property 'name'"),
    ("agent.podLabels.a=1", "'/agent/podLabels/a'"),
    ("controller.replicas=-1", "'/controller/replicas'"),
    ("controller.logFormat=xml", "'/controller/logFormat'"),
    ("controller.topologySpreadConstraints[0].maxSkew=1", "missing properties 'topologyKey', 'whenUnsatisfiable'"),
    ("vipRanges={203.0.113.0}", "'/vipRanges/0'"),
    ("vipRanges=203.0.113.0/24", "'/vipRanges'"),
    ("hashKey.existingSecret=My_Key", "'/hashKey/existingSecret'"),
    ("image.digest=latest", "'/image/digest'"),
    ("image.pullPolicy=Sometimes", "'/image/pullPolicy'"),
    ("uninstall.timeoutSeconds=5m", "'/uninstall/timeoutSeconds'"),
    ("podMonitor.interval=often", "'/podMonitor/interval'"),
    ("alerts.disabled={Watchdog}", "'/alerts/disabled/0'"),
    ("crds.install=perhaps", "'/crds/install'"),
];

pub(super) fn test(helm: &Helm) -> Result<()> {
    for (value, message) in REFUSED {
        let said = helm.template(&["--set", value]).try_read()?;
        ensure!(!said.status.success(), "--set {value} is accepted; values.schema.json should refuse it");
        ensure!(said.stderr.contains(message), "--set {value}: helm does not say {message:?}, but\n{}", said.stderr);
    }
    Ok(())
}
