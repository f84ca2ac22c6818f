use std::fmt;

use serde::{Deserialize, Serialize};

use super::Frontend;

/// Namespace and name of an object; shown as `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceName {
    /// Namespace.
    pub namespace: String,
    /// Name in the namespace.
    pub name: String,
}

impl ServiceName {
    /// `namespace/name`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The name of a part: frontends of one VirtualService that have other endpoints than the rest (VIPs of another
    /// family, ports of another target) are a service of their own in the data path, named after their least
    /// frontend: `shop/web@[2001:db8::10]:80/TCP`. The part with the least frontend of all has the plain name.
    #[must_use]
    pub fn part(&self, least: Frontend) -> Self {
        Self::new(self.namespace.clone(), format!("{}@{least}", self.name))
    }

    /// The VirtualService that this service of the data path belongs to.
    #[must_use]
    pub fn owner(&self) -> Self {
        let name = self.name.split_once('@').map_or(self.name.as_str(), |(name, _)| name);
        Self::new(self.namespace.clone(), name)
    }

    /// The name that [`fmt::Display`] shows, read back; `None` where there is no `/`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (namespace, name) = text.split_once('/')?;
        Some(Self::new(namespace, name))
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
