//! Why a device differs: because of an edit, or because someone has changed it.
//!
//! A plan is compared with the one before it, so that nothing is remembered of what is in sync.
//!
//! | the plan before                            | cause of the difference           |
//! |--------------------------------------------|-----------------------------------|
//! | has the same difference                    | as before                         |
//! | desired the same, and the field was met    | `Drift`                           |
//! | desired something else                     | `Declared`                        |
//! | none, or the field was not read            | as the caller says                |

use super::DevicePlan;
use crate::plan::{ChangeCause, Difference, Field, PolicyKey, Why};

/// What is known of a device besides its plans.
pub struct CauseContext<'a> {
    /// The cause of a change that was sent and that no read has verified: the field has not been met since.
    pub written: &'a dyn Fn(&Field) -> Option<ChangeCause>,
    /// The cause of a difference that this policy has on a device that was not compared before.
    pub first: &'a dyn Fn(&PolicyKey) -> ChangeCause,
    /// Whether the device is new to this policy.
    pub joined: &'a dyn Fn(&PolicyKey) -> bool,
}

impl DevicePlan {
    /// Gives each difference its cause, by the plan before this one.
    pub fn set_causes(&mut self, before: &Self, context: &CauseContext<'_>) {
        let mut differences = std::mem::take(&mut self.differences);
        let mut shown = std::mem::take(&mut self.shown);
        for difference in differences.iter_mut().chain(&mut shown) {
            difference.cause = Some(self.cause(before, difference, context));
        }
        (self.differences, self.shown) = (differences, shown);
    }

    fn cause(
        &self,
        before: &Self,
        difference: &Difference,
        context: &CauseContext<'_>,
    ) -> ChangeCause {
        match difference.why {
            Why::Released => return ChangeCause::Released,
            Why::NoLongerDeclared => return ChangeCause::Declared,
            // No one can undo an action.
            _ if difference.is_action() => return ChangeCause::Declared,
            Why::Declared | Why::NotDeclared => {}
        }
        let (owner, field) = (&difference.owner, &difference.change.field());
        let first = || {
            if (context.joined)(owner) {
                ChangeCause::Joined
            } else {
                (context.first)(owner)
            }
        };
        if !before.owners.knows(owner) {
            return first();
        }
        if !self.owners.desires_same_as(&before.owners, owner, field) {
            // An edit can come while the device is still new.
            return ChangeCause::Declared;
        }
        let open = before.of(owner).find(|it| it.change.field() == *field);
        let open = open.and_then(|it| it.cause);
        open.or_else(|| (context.written)(field))
            .unwrap_or_else(|| {
                if before.has_compared(field) {
                    ChangeCause::Drift
                } else {
                    first()
                }
            })
    }

    /// Whether the field had been read when this plan was made.
    fn has_compared(&self, field: &Field) -> bool {
        match field {
            Field::Attribute(_) => !self.attributes_unread,
            Field::List(list) if list.is_of_routes() => !self.routes_unread,
            _ => true,
        }
    }
}
