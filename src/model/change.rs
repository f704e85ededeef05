//! What shall become different about a VM that exists.

use std::str::FromStr;

use super::egress::{Egress, Grant, Reach};
use super::time_span::TimeSpanError;
use super::{IdleStop, Mib, TimeSpan, VmSpec};

/// What shall change; `None`: stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct VmChange {
    /// Virtual CPUs.
    pub vcpus: Option<u8>,
    /// Memory.
    pub memory: Option<Mib>,
    /// Size of the root disk, which only grows.
    pub disk: Option<Mib>,
    /// How much longer it exists.
    pub lifetime: Option<Lifetime>,
    /// How far its guest reaches.
    pub reach: Option<Reach>,
    /// What is granted beside what was.
    pub allow: Vec<Grant>,
    /// What is granted no more.
    pub disallow: Vec<Grant>,
    /// After how long without use it is stopped.
    pub idle_stop: Option<IdleStop>,
}

/// How long a VM exists, counted from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Lifetime {
    /// Until somebody deletes it.
    Unlimited,
    /// It is deleted then, running or not.
    For(TimeSpan),
}

impl FromStr for Lifetime {
    type Err = TimeSpanError;
    fn from_str(text: &str) -> Result<Self, TimeSpanError> {
        if text == "none" { Ok(Self::Unlimited) } else { text.parse().map(Self::For) }
    }
}

impl Lifetime {
    /// The end of it in Unix seconds, `now` being the same.
    pub fn end(self, now: u64) -> Option<u64> {
        match self {
            Self::Unlimited => None,
            Self::For(span) => Some(now.saturating_add(span.seconds())),
        }
    }
}

impl VmChange {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it needs a VM that does not run.
    pub fn touches_machine(&self) -> bool {
        self.vcpus.is_some() || self.memory.is_some() || self.disk.is_some()
    }

    /// `spec` as it will be.
    pub fn applied_to(&self, spec: &VmSpec) -> VmSpec {
        VmSpec {
            vcpus: self.vcpus.unwrap_or(spec.vcpus),
            memory: self.memory.unwrap_or(spec.memory),
            disk: self.disk.unwrap_or(spec.disk),
            egress: self.applied_to_egress(&spec.egress),
            idle_stop: self.idle_stop.map_or(spec.idle_stop, IdleStop::span),
            ..spec.clone()
        }
    }

    /// Whether it changes where the guest may go.
    pub fn touches_egress(&self) -> bool {
        self.reach.is_some() || !self.allow.is_empty() || !self.disallow.is_empty()
    }

    fn applied_to_egress(&self, egress: &Egress) -> Egress {
        let mut changed = Egress { reach: self.reach.unwrap_or(egress.reach), grants: egress.grants.clone() };
        changed.grants.retain(|grant| !self.disallow.contains(grant));
        changed.grant(self.allow.iter().cloned());
        changed
    }

    /// The first of what is to be granted no more that was not granted.
    pub fn never_granted<'a>(&'a self, egress: &Egress) -> Option<&'a Grant> {
        self.disallow.iter().find(|grant| !egress.grants.contains(grant))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_ends_or_does_not() {
        let hour: Lifetime = "1h".parse().expect("a lifetime");
        assert_eq!((hour.end(1000), Lifetime::Unlimited.end(1000)), (Some(4600), None));
        assert_eq!("none".parse(), Ok(Lifetime::Unlimited));
        assert!("never".parse::<Lifetime>().is_err());
    }

    #[test]
    fn a_lifetime_alone_leaves_the_machine_as_it_is() {
        let change = VmChange { lifetime: Some(Lifetime::Unlimited), ..VmChange::default() };
        assert!(!change.touches_machine() && !change.is_empty() && VmChange::default().is_empty());
        assert!(VmChange { disk: Some(Mib(1)), ..VmChange::default() }.touches_machine());
    }
}
