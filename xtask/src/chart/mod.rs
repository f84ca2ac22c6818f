//! The Helm chart: what is generated of it, what it renders to, and what a real API server makes of that.

mod helm;
mod operator;
mod policy;
mod readme;
mod refused;
mod release;
mod server;
mod snapshots;
mod wrapped;

pub(crate) use readme::text as readme;

use anyhow::Result;

use crate::test::{Count, count};
use helm::Helm;

/// Where the chart is, from the root of the clone.
pub(crate) const DIRECTORY: &str = "deploy/helm/guenon";
/// What tests call the release and its namespace, as docs do.
const RELEASE: &str = "guenon";
pub(crate) const NAMESPACE: &str = "guenon-system";

/// `cargo xtask chart`: renders the snapshots, and says which differ or writes them anew.
pub(crate) fn run(accept: bool) -> Result<()> {
    snapshots::run(&Helm::find()?, accept)
}

/// What these templates of the chart render to.
pub(crate) fn render(templates: &[String]) -> Result<String> {
    let show: Vec<&str> = templates.iter().flat_map(|template| ["--show-only", template]).collect();
    Helm::find()?.template(&show).read()
}

/// `cargo xtask test --only chart`
pub(crate) fn test() -> Result<Count> {
    let helm = Helm::find()?;
    let mut total = count("helm lint --strict has no complaint", || helm.lint());
    total = total + count("the chart renders to what is committed", || snapshots::run(&helm, false));
    total = total + count("definitions, dashboards and alerts are rendered whole", || wrapped::test(&helm));
    total = total + count("values that make no sense are refused", || refused::test(&helm));
    Ok(total + server::test(&helm)?)
}
