//! The difference between what exists and what must exist, as steps that can each be undone. Touches nothing.

use std::fmt;

use rnetkit_drivers::{InterfaceName, Resource};
use serde::Serialize;

/// One change to one resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Make what does not exist.
    Create(Resource),
    /// Bring one state of a thing into another.
    Change {
        /// As it is.
        from: Resource,
        /// As it must be.
        to: Resource,
    },
    /// Unmake what exists.
    Remove(Resource),
}

impl Step {
    /// The step that takes this one back.
    #[must_use]
    pub fn undo(&self) -> Self {
        match self {
            Self::Create(resource) => Self::Remove(resource.clone()),
            Self::Remove(resource) => Self::Create(resource.clone()),
            Self::Change { from, to } => Self::Change { from: to.clone(), to: from.clone() },
        }
    }
}

impl Step {
    /// The sandbox that the step is taken in, and what it is there.
    #[must_use]
    pub fn inside(&self) -> Option<(&InterfaceName, Self)> {
        match self {
            Self::Create(resource) => {
                resource.inside().map(|(sandbox, what)| (sandbox, Self::Create(what.clone())))
            }
            Self::Remove(resource) => {
                resource.inside().map(|(sandbox, what)| (sandbox, Self::Remove(what.clone())))
            }
            Self::Change { from, to } => {
                let ((sandbox, from), (_, to)) = (from.inside()?, to.inside()?);
                Some((sandbox, Self::Change { from: from.clone(), to: to.clone() }))
            }
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(resource) => write!(f, "+ {resource}"),
            Self::Change { from, to } => write!(f, "~ {from} => {to}"),
            Self::Remove(resource) => write!(f, "- {resource}"),
        }
    }
}

/// Steps in the order in which they are run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Step>,
}

impl Plan {
    /// The plan that leads from what exists to what must exist: what is too much goes first, last made first
    /// gone, then what is missing comes, in the order of `to`.
    ///
    /// What lives on a link that goes needs no step of its own: the kernel takes it along.
    #[must_use]
    pub fn between(from: &[Resource], to: &[Resource]) -> Self {
        let mut steps: Vec<Step> = Vec::new();
        let surplus = || from.iter().filter(|resource| !to.contains(resource));
        let changed_to = |resource: &Resource| {
            to.iter().find(|other| other.is_same_thing(resource) && !from.contains(other))
        };
        let gone: Vec<&Resource> = surplus().filter(|resource| changed_to(resource).is_none()).collect();
        let goes_along = |resource: &Resource| gone.iter().any(|other| resource.goes_with(other));
        let removed = gone.iter().rev().filter(|resource| !goes_along(resource) && !resource.is_kept());
        steps.extend(removed.map(|resource| Step::Remove((*resource).clone())));
        for resource in to.iter().filter(|resource| !from.contains(resource)) {
            let before = surplus().find(|other| other.is_same_thing(resource));
            steps.push(match before {
                Some(before) if !goes_along(before) => {
                    Step::Change { from: before.clone(), to: resource.clone() }
                }
                _ => Step::Create(resource.clone()),
            });
        }
        Self { steps }
    }

    /// The plan that takes the first `done` steps back, last first.
    #[must_use]
    pub fn undo(&self, done: usize) -> Self {
        let taken = &self.steps[..done.min(self.steps.len())];
        let carried = |resource: &Resource| {
            taken.iter().any(|step| matches!(step, Step::Create(other) if resource.goes_with(other)))
        };
        let goes_along = |step: &Step| match step {
            Step::Create(resource) => resource.is_kept() || carried(resource),
            Step::Change { .. } | Step::Remove(_) => false,
        };
        Self { steps: taken.iter().rev().filter(|step| !goes_along(step)).map(Step::undo).collect() }
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// This plan, then the other.
    #[must_use]
    pub fn then(mut self, other: Self) -> Self {
        self.steps.extend(other.steps);
        self
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rnetkit_drivers::{Family, Member, Place};

    use super::*;

    fn link(number: u8) -> InterfaceName {
        format!("l{number}").parse().unwrap()
    }

    /// Resources that live on each other, and default routes that are one thing in several states.
    fn resource() -> impl Strategy<Value = Resource> {
        prop_oneof![
            (0u8..4).prop_map(|n| Resource::Bridge {
                name: link(n),
                mac: "02:42:00:00:00:01".parse().unwrap(),
                mtu: 1500,
                group: 1,
                alias: String::new(),
            }),
            (0u8..4).prop_map(|n| Resource::Up { place: Place::Host, link: link(n) }),
            (0u8..4).prop_map(|n| Resource::Address {
                place: Place::Host,
                link: link(n),
                address: format!("10.0.{n}.1/24").parse().unwrap(),
            }),
            (1u8..4).prop_map(|n| Resource::DefaultRoute { gateway: [10, 0, n, 1].into(), link: link(n) }),
            (0u8..4).prop_map(|n| Resource::Member(Member::Bridge { link: link(n) })),
            Just(Resource::Forwarding { family: Family::Ipv4 }),
        ]
    }

    /// A world: what lives on a link is only there if the link is, and one route at most.
    fn world() -> impl Strategy<Value = Vec<Resource>> {
        proptest::collection::vec(resource(), 0..12).prop_map(|list| {
            let mut world: Vec<Resource> = Vec::new();
            for resource in list {
                if !world.iter().any(|other| other.is_same_thing(&resource)) {
                    world.push(resource);
                }
            }
            world.sort_by_key(|resource| resource.lives_on().is_some());
            world
        })
    }

    /// What the kernel would have after a plan: a link that goes takes along what lives on it.
    fn run(world: &[Resource], plan: &Plan) -> Vec<Resource> {
        let mut world = world.to_vec();
        for step in &plan.steps {
            match step {
                Step::Create(resource) => world.push(resource.clone()),
                Step::Remove(resource) => {
                    world.retain(|other| {
                        other != resource && !other.lives_on().is_some_and(|(p, l)| resource.carries(p, l))
                    });
                }
                Step::Change { from, to } => {
                    world.retain(|other| other != from);
                    world.push(to.clone());
                }
            }
        }
        world.sort_by_key(|resource| format!("{resource:?}"));
        world
    }

    fn sorted(world: &[Resource]) -> Vec<Resource> {
        run(world, &Plan::default())
    }

    /// Targets in which nothing lives on a link that the plan removes.
    fn sound(from: &[Resource], to: &[Resource]) -> bool {
        let removed = |r: &&Resource| !to.contains(r);
        !to.iter().any(|r| {
            from.contains(r)
                && r.lives_on().is_some_and(|(p, l)| from.iter().filter(removed).any(|o| o.carries(p, l)))
        })
    }

    proptest! {
        #[test]
        fn a_plan_leads_there_and_a_second_one_is_empty(from in world(), to in world()) {
            prop_assume!(sound(&from, &to));
            let plan = Plan::between(&from, &to);
            prop_assert_eq!(run(&from, &plan), sorted(&to));
            prop_assert!(Plan::between(&to, &to).is_empty());
        }

        #[test]
        fn what_was_made_from_nothing_is_taken_back_from_every_step(to in world(), done in 0usize..12) {
            let plan = Plan::between(&[], &to);
            let done = done.min(plan.steps.len());
            let half = run(&[], &Plan { steps: plan.steps[..done].to_vec() });
            prop_assert_eq!(run(&half, &plan.undo(done)), Vec::new());
        }
    }

    #[test]
    fn a_default_route_is_changed_in_place() {
        let via = |n: u8| Resource::DefaultRoute { gateway: [10, 0, n, 1].into(), link: link(n) };
        let plan = Plan::between(&[via(1)], &[via(2)]);
        assert_eq!(plan.steps, [Step::Change { from: via(1), to: via(2) }]);
        assert_eq!(
            plan.to_string(),
            "~ default route via 10.0.1.1 on l1 in the container => default route via 10.0.2.1 on l2 in the container\n"
        );
    }
}
