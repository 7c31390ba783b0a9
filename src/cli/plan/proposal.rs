//! What policies would change in a tailnet now, and all that this came from.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::view::View;
use crate::{
    cli::{earlier::Earlier, look::Look},
    model::ChangeLimit,
    plan::{Declared, Guards, PolicyKey, Survey},
    tailscale::{Client, Error},
};

/// A look at a tailnet, and its comparison with policies.
pub(in crate::cli) struct Proposal {
    pub policies: Vec<Declared>,
    /// What the tailnet permits.
    pub guards: Guards,
    /// How many devices may be changed.
    pub limit: ChangeLimit,
    /// The policies that somebody has released from the limit.
    pub released: BTreeSet<PolicyKey>,
    pub look: Look,
    pub survey: Survey,
    /// When it was made.
    pub now: Timestamp,
}

impl Proposal {
    /// Looks and compares.
    pub async fn make(
        client: &Client,
        mut policies: Vec<Declared>,
        guards: Guards,
        earlier: &Earlier,
        limit: ChangeLimit,
    ) -> Result<Self, Error> {
        let mut look = Look::new(client).await?;
        let now = Timestamp::now();
        earlier.remind(&mut policies, &look.fleet, now);
        let survey = look.survey(client, &policies, &guards, limit, now).await?;
        Ok(Self {
            policies,
            guards,
            limit,
            released: BTreeSet::new(),
            look,
            survey,
            now,
        })
    }

    /// Compares anew what was read, as policies were released.
    pub fn compare(&mut self) {
        self.survey = self.look.compare(
            &self.policies,
            &self.guards,
            self.limit,
            &self.released,
            self.now,
        );
    }

    /// As it is told.
    pub fn view(&self) -> View<'_> {
        View::of(&self.policies, &self.survey, &self.look, self.now)
    }
}
