//! Every order of steps, crashes and failures of logins and cleaners on two backends, tried out
//! on a model of the protocol (docs/protocol.md), and the proof that the search finds mistakes.
//!
//! The larger searches: `cargo test --release --test model -- --ignored --nocapture`.

mod plugin;
mod protocol;

use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

use protocol::{Mistake, Names, Protocol};

/// A login on backend a, on backend b, and a cleaner on backend a.
const A: (usize, bool) = (0, false);
const B: (usize, bool) = (1, false);
const CLEANER: (usize, bool) = (0, true);

fn protocol(processes: &[(usize, bool)]) -> Protocol {
    Protocol {
        processes: processes.to_vec(),
        names: Names::TwoBackends,
        migration: false,
        switched: false,
        failures: false,
        timeouts: false,
        unmounts: false,
        copies: false,
        mistake: Mistake::None,
    }
}

/// Searches everything; nothing may be found.
fn check(what: &str, protocol: Protocol) {
    let began = Instant::now();
    let checker = protocol.checker().threads(2).spawn_bfs().join();
    println!(
        "{what}: {} states, up to {} steps deep, {:.1?}",
        checker.unique_state_count(),
        checker.max_depth(),
        began.elapsed()
    );
    checker.assert_properties();
}

/// Searches until the mistake shows: it must break the property called `property`.
fn find(property: &'static str, protocol: Protocol) {
    let began = Instant::now();
    let mistake = protocol.mistake;
    let checker = protocol
        .checker()
        .threads(2)
        .finish_when(HasDiscoveries::AnyOf([property].into()))
        .spawn_bfs()
        .join();
    let path = checker.assert_any_discovery(property).into_actions();
    println!(
        "{mistake:?}: {} steps to \"{property}\", {} states, {:.1?}",
        path.len(),
        checker.unique_state_count(),
        began.elapsed()
    );
}

#[test]
fn two_backends_never_trust_a_stale_list_index() {
    check("a login on each of two backends", protocol(&[A, B]));
}

#[test]
fn two_logins_on_one_backend_never_trust_a_stale_list_index() {
    check(
        "two logins on one backend, the lock may time out",
        Protocol {
            timeouts: true,
            failures: true,
            ..protocol(&[A, A])
        },
    );
}

#[test]
fn a_cleaner_never_leaves_half_a_list_index_with_a_record() {
    check(
        "a login and a cleaner",
        Protocol {
            failures: true,
            ..protocol(&[A, CLEANER])
        },
    );
}

#[test]
fn an_unmounted_index_never_ruins_a_trusted_list_index() {
    check(
        "a login, INDEX comes and goes",
        Protocol {
            unmounts: true,
            failures: true,
            ..protocol(&[A])
        },
    );
}

#[test]
fn a_migration_never_loses_or_trusts_what_it_should_not() {
    check(
        "a login, migration",
        Protocol {
            migration: true,
            failures: true,
            ..protocol(&[A])
        },
    );
}

#[test]
fn two_migrations_never_lose_or_trust_what_they_should_not() {
    check(
        "two logins on one backend, migration",
        Protocol {
            migration: true,
            ..protocol(&[A, A])
        },
    );
}

#[test]
fn copied_directories_and_a_restored_store_are_never_trusted() {
    check(
        "a login on each of two backends, directories and the store are copied",
        Protocol {
            copies: true,
            ..protocol(&[A, B])
        },
    );
}

#[test]
fn a_migration_that_is_switched_off_and_on_trusts_no_old_copy() {
    check(
        "a login, migration on or off",
        Protocol {
            migration: true,
            switched: true,
            ..protocol(&[A])
        },
    );
}

#[test]
fn originals_beside_which_nobody_could_claim_are_not_trusted_later() {
    check(
        "a login, migration on or off, anything fails",
        Protocol {
            migration: true,
            switched: true,
            failures: true,
            ..protocol(&[A])
        },
    );
}

#[test]
fn leaving_no_sign_that_somebody_wanted_to_claim_is_found() {
    find(
        "no stale list index is trusted",
        Protocol {
            mistake: Mistake::NoVoid,
            migration: true,
            switched: true,
            failures: true,
            ..protocol(&[A])
        },
    );
}

#[test]
fn forgetting_that_originals_were_to_go_is_found() {
    find(
        "no stale list index is trusted",
        Protocol {
            mistake: Mistake::ForgetMoved,
            migration: true,
            switched: true,
            ..protocol(&[A])
        },
    );
}

/// Two list indexes of one mailbox on one backend.
fn two_names(names: Names, mistake: Mistake) -> Protocol {
    Protocol {
        names,
        mistake,
        // Else it takes minutes.
        failures: names == Names::TwoUids || mistake != Mistake::None,
        ..protocol(&[A, B])
    }
}

#[test]
fn of_two_names_for_one_mailbox_none_trusts_a_stale_list_index() {
    check(
        "a login by either of two names for one mailbox",
        two_names(Names::OneUid, Mistake::None),
    );
}

#[test]
#[ignore = "takes minutes: cargo test --release --test model -- --ignored"]
fn of_two_names_for_one_mailbox_with_failing_calls() {
    check(
        "a login by either of two names for one mailbox, and anything fails",
        Protocol {
            failures: true,
            ..two_names(Names::OneUid, Mistake::None)
        },
    );
}

#[test]
fn of_two_uids_with_one_mailbox_none_trusts_a_stale_list_index() {
    check(
        "a login by either of two uids with one mailbox",
        two_names(Names::TwoUids, Mistake::None),
    );
}

#[test]
fn overlooking_another_list_index_of_the_mailbox_is_found() {
    find(
        "no stale list index is trusted",
        two_names(Names::OneUid, Mistake::OverlookOtherName),
    );
}

#[test]
fn taking_another_uid_s_list_index_for_none_is_found() {
    find(
        "no stale list index is trusted",
        two_names(Names::TwoUids, Mistake::ForeignIsNone),
    );
}

#[test]
fn not_naming_a_session_beside_another_list_index_is_found() {
    find(
        "no stale list index is trusted",
        two_names(Names::OneUid, Mistake::NotNamed),
    );
}

#[test]
fn forgetting_what_a_claim_said_that_was_set_aside_is_found() {
    find(
        "no stale list index is trusted",
        two_names(Names::TwoUids, Mistake::ForgetVoid),
    );
}

#[test]
fn a_list_index_that_counts_although_nobody_uses_it_any_more_is_found() {
    find(
        "a list index that nobody uses any more keeps nobody from another",
        two_names(Names::OneUid, Mistake::OtherForEver),
    );
}

#[test]
#[ignore = "takes minutes: cargo test --release --test model -- --ignored"]
fn two_backends_with_failing_calls() {
    check(
        "a login on each of two backends, and anything fails",
        Protocol {
            failures: true,
            ..protocol(&[A, B])
        },
    );
}

#[test]
#[ignore = "takes minutes: cargo test --release --test model -- --ignored"]
fn two_backends_and_unmounts() {
    check(
        "a login on each of two backends, INDEX comes and goes",
        Protocol {
            unmounts: true,
            ..protocol(&[A, B])
        },
    );
}

#[test]
#[ignore = "takes minutes: cargo test --release --test model -- --ignored"]
fn two_backends_and_a_cleaner() {
    check(
        "a login on each of two backends and a cleaner",
        protocol(&[A, B, CLEANER]),
    );
}

#[test]
#[ignore = "takes minutes: cargo test --release --test model -- --ignored"]
fn two_migrations_with_timeouts() {
    check(
        "two logins on one backend, migration, the lock may time out, anything fails",
        Protocol {
            migration: true,
            timeouts: true,
            failures: true,
            ..protocol(&[A, A])
        },
    );
}

#[test]
#[ignore = "takes minutes: cargo test --release --test model -- --ignored"]
fn two_backends_migrating() {
    check(
        "a login on each of two backends, migration",
        Protocol {
            migration: true,
            ..protocol(&[A, B])
        },
    );
}

#[test]
fn believing_a_copied_record_is_found() {
    find(
        "no stale list index is trusted",
        Protocol {
            mistake: Mistake::BelieveCopies,
            copies: true,
            ..protocol(&[A, B])
        },
    );
}

#[test]
fn knowing_a_claim_by_its_time_alone_is_found() {
    find(
        "no stale list index is trusted",
        Protocol {
            mistake: Mistake::TimeAlone,
            copies: true,
            ..protocol(&[A])
        },
    );
}

#[test]
fn recording_before_deleting_is_found() {
    find(
        "no stale list index is trusted",
        Protocol {
            mistake: Mistake::RecordBeforeDeleting,
            ..protocol(&[A, B])
        },
    );
}

#[test]
fn taking_the_identity_by_path_is_found() {
    find(
        "only the last claimer's record equals the claim",
        Protocol {
            mistake: Mistake::IdentityByPath,
            ..protocol(&[A, B])
        },
    );
}

#[test]
fn not_looking_again_under_the_exclusive_lock_is_found() {
    find(
        "no trusted list index is deleted",
        Protocol {
            mistake: Mistake::NoSecondLook,
            ..protocol(&[A, A])
        },
    );
}

#[test]
fn trusting_a_host_name_is_found() {
    find(
        "no stale list index is trusted",
        Protocol {
            mistake: Mistake::HostName,
            ..protocol(&[A, B])
        },
    );
}

#[test]
fn deleting_the_originals_before_recording_is_found() {
    find(
        "no original is lost",
        Protocol {
            mistake: Mistake::OriginalsBeforeRecord,
            migration: true,
            ..protocol(&[A])
        },
    );
}

#[test]
fn checking_the_originals_before_the_claim_is_found() {
    find(
        "no stale list index is trusted",
        Protocol {
            mistake: Mistake::ConfirmBeforeClaim,
            migration: true,
            ..protocol(&[A])
        },
    );
}

#[test]
fn using_the_list_index_after_a_timeout_is_found() {
    find(
        "no stale list index is trusted",
        Protocol {
            mistake: Mistake::UseAfterTimeout,
            migration: true,
            timeouts: true,
            ..protocol(&[A, A])
        },
    );
}

#[test]
fn keeping_the_record_when_index_is_missing_is_found() {
    find(
        "no stale list index is trusted",
        Protocol {
            mistake: Mistake::KeepWhenMissing,
            unmounts: true,
            ..protocol(&[A])
        },
    );
}

#[test]
fn a_cleaner_that_deletes_the_record_last_is_found() {
    find(
        "no part of a list index is trusted",
        Protocol {
            mistake: Mistake::CleanerRecordLast,
            ..protocol(&[A, CLEANER])
        },
    );
}

#[test]
fn a_plain_stat_is_found() {
    find(
        "no stale list index is trusted",
        Protocol {
            mistake: Mistake::PlainStat,
            ..protocol(&[A, B])
        },
    );
}

#[test]
fn not_claiming_for_a_session_without_list_index_is_found() {
    find(
        "no stale list index is trusted",
        Protocol {
            mistake: Mistake::SilentWithout,
            failures: true,
            ..protocol(&[A, B])
        },
    );
}

#[test]
fn taking_over_what_somebody_else_wrote_is_found() {
    find(
        "nobody else's list index is deleted",
        Protocol {
            mistake: Mistake::TakeOverAgain,
            migration: true,
            ..protocol(&[A])
        },
    );
}

#[test]
fn overlooking_that_somebody_else_wrote_is_found() {
    find(
        "no stale list index is trusted",
        Protocol {
            mistake: Mistake::ForgetShared,
            migration: true,
            ..protocol(&[A])
        },
    );
}

#[test]
fn going_on_without_a_look_at_the_lock_file_is_found() {
    find(
        "no part of a list index is trusted",
        Protocol {
            mistake: Mistake::NoCheckAfterWaiting,
            timeouts: true,
            ..protocol(&[A, A])
        },
    );
}

#[test]
fn a_list_index_beside_a_session_without_one_is_found() {
    find(
        "no stale list index is trusted",
        Protocol {
            mistake: Mistake::IgnoreNotes,
            failures: true,
            ..protocol(&[A, A])
        },
    );
}

#[test]
fn not_claiming_at_the_end_of_a_session_without_list_index_is_found() {
    find(
        "no stale list index is trusted",
        Protocol {
            mistake: Mistake::SilentEnd,
            failures: true,
            ..protocol(&[A, B])
        },
    );
}

#[test]
fn leaving_the_lock_file_to_whoever_keeps_it_is_found() {
    find(
        "no stale list index is trusted",
        Protocol {
            mistake: Mistake::KeepLockFile,
            timeouts: true,
            failures: true,
            unmounts: true,
            ..protocol(&[A, A])
        },
    );
}
