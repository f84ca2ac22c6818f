//! The Lease of the election, read and written.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;

use super::election::{Elector, Held, LASTS, LOOK, Step};
use crate::kube::chain;

/// The Lease.
pub(crate) const NAME: &str = "guenon-controller";
/// How long one question may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Takes part in the election and tells until when this replica leads (`None`: it does not). On request it lets go.
pub(super) async fn stand(
    client: Client,
    namespace: String,
    identity: String,
    leads: watch::Sender<Option<Instant>>,
    mut let_go: watch::Receiver<bool>,
) {
    let leases: Api<Lease> = Api::namespaced(client, &namespace);
    let mut elector = Elector::new(identity.clone());
    let mut failed = None;
    loop {
        let ending = *let_go.borrow();
        let asked = Instant::now();
        let done = tokio::time::timeout(LIMIT, look(&leases, &mut elector, &identity, ending)).await;
        match done {
            Ok(Ok(())) => failed = None,
            Ok(Err(error)) => say(&mut failed, chain(&error), &namespace),
            Err(_) => say(&mut failed, format!("no answer within {} s", LIMIT.as_secs()), &namespace),
        }
        let until = elector.leads_until().filter(|until| *until > Instant::now() && !ending);
        leads.send_if_modified(|told| {
            if told.is_some() != until.is_some() {
                tracing::info!(leads = until.is_some(), "election");
            }
            std::mem::replace(told, until) != until
        });
        if ending {
            return;
        }
        let pause = LOOK.saturating_sub(asked.elapsed());
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            changed = let_go.changed() => if changed.is_err() { return },
        }
    }
}

fn say(failed: &mut Option<String>, why: String, namespace: &str) {
    if failed.as_ref() != Some(&why) {
        tracing::warn!("cannot take part in the election (Lease {namespace}/{NAME}): {why}; trying again");
        *failed = Some(why);
    }
}

async fn look(leases: &Api<Lease>, elector: &mut Elector, identity: &str, ending: bool) -> kube::Result<()> {
    let asked = Instant::now();
    let found = leases.get_opt(NAME).await?;
    let step = elector.saw(found.as_ref().map(held), asked);
    let (holder, transitions) = match step {
        Step::Wait => {
            elector.lost();
            return Ok(());
        }
        Step::Create | Step::Take { .. } if ending => return Ok(()),
        Step::Renew if ending => ("", None),
        Step::Create => (identity, Some(0)),
        Step::Renew => (identity, None),
        Step::Take { transitions } => (identity, Some(transitions)),
    };
    let written = write(leases, found, holder, transitions).await;
    match written {
        Ok(()) if holder == identity => elector.renewed(asked),
        Ok(()) => elector.lost(),
        // Another was faster.
        Err(kube::Error::Api(status)) if status.code == 409 => elector.lost(),
        Err(error) => return Err(error),
    }
    Ok(())
}

fn held(lease: &Lease) -> Held {
    let spec = lease.spec.as_ref();
    Held {
        holder: spec.and_then(|spec| spec.holder_identity.clone()).unwrap_or_default(),
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
        transitions: spec.and_then(|spec| spec.lease_transitions).unwrap_or_default(),
    }
}

/// Written over what was read: if that has changed meanwhile, the server refuses.
async fn write(leases: &Api<Lease>, found: Option<Lease>, holder: &str, transitions: Option<i32>) -> kube::Result<()> {
    let now = MicroTime(Timestamp::now());
    let fresh =
        || Lease { metadata: ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() }, ..Lease::default() };
    let made = found.is_some();
    let mut lease = found.unwrap_or_else(fresh);
    let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
    spec.holder_identity = Some(holder.to_owned());
    spec.lease_duration_seconds = i32::try_from(LASTS.as_secs()).ok();
    spec.renew_time = Some(now.clone());
    if let Some(transitions) = transitions {
        spec.lease_transitions = Some(transitions);
        spec.acquire_time = Some(now);
    }
    if made {
        leases.replace(NAME, &PostParams::default(), &lease).await.map(drop)
    } else {
        leases.create(&PostParams::default(), &lease).await.map(drop)
    }
}
