//! How a coordinator reaches a shard by a connection of its own: which options of the server and the user mapping go to
//! libpq, and what is said there. The rules are those of `postgres_fdw`; what is not known here is left to it.

use std::ffi::CStr;

/// Options of `postgres_fdw` that are no matter of the connection.
const OF_WRAPPER: &[&str] = &[
    "analyze_sampling",
    "async_capable",
    "batch_size",
    "extensions",
    "fdw_startup_cost",
    "fdw_tuple_cost",
    "fetch_size",
    "parallel_abort",
    "parallel_commit",
    "truncatable",
    "updatable",
    "use_remote_estimate",
];

/// Options that libpq takes and that mean the same whoever connects.
const OF_LIBPQ: &[&str] = &[
    "application_name",
    "channel_binding",
    "connect_timeout",
    "dbname",
    "gssencmode",
    "gsslib",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "krbsrvname",
    "load_balance_hosts",
    "options",
    "passfile",
    "password",
    "port",
    "require_auth",
    "requirepeer",
    "service",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcert",
    "sslcertmode",
    "sslcompression",
    "sslcrl",
    "sslcrldir",
    "sslkey",
    "sslmode",
    "sslnegotiation",
    "sslpassword",
    "sslrootcert",
    "sslsni",
    "target_session_attrs",
    "tcp_user_timeout",
    "user",
];

/// Asks: the question in JSON, its payload. Nothing is set in the session for it: keys are written one way whatever the
/// settings are, all names have their schema, and behind a pooler the session is others' as well.
pub const ASK: &CStr =
    c"SELECT copymatch.shard_answer_final(NULL::pg_catalog.bool, $1::pg_catalog.jsonb, $2::pg_catalog.bytea)";

/// Gives what follows one snapshot, as `postgres_fdw` does.
pub const BEGIN: &CStr = c"START TRANSACTION ISOLATION LEVEL REPEATABLE READ";

/// Ends that.
pub const COMMIT: &CStr = c"COMMIT TRANSACTION";

/// How to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// libpq's keywords and their values, in the order in which the later goes before the earlier.
    pub keywords: Vec<(String, String)>,
    /// Whether a password is among them.
    pub has_password: bool,
    /// Whether who is no superuser must connect by that password: a superuser did not say otherwise in the mapping.
    pub password_required: bool,
    /// Seconds that connecting may take; 0: as long as it takes.
    pub connect_timeout: u64,
}

/// What options of a server and of a user mapping come to. None where `postgres_fdw` has to connect: an option is not
/// known here, is not as it should be, or wants what only it can do (delegated credentials, SCRAM keys passed through,
/// connections that are not kept).
#[must_use]
pub fn settle(server: &[(String, String)], mapping: &[(String, String)], encoding: &str) -> Option<Settled> {
    let mut settled = Settled {
        keywords: Vec::new(),
        has_password: false,
        password_required: true,
        connect_timeout: 0,
    };
    for (of_mapping, (name, value)) in server
        .iter()
        .map(|one| (false, one))
        .chain(mapping.iter().map(|one| (true, one)))
    {
        match name.as_str() {
            "password_required" if of_mapping => settled.password_required = boolean(value)?,
            "keep_connections" if boolean(value)? => {}
            "gssdelegation" | "use_scram_passthrough" if value == "0" || !boolean(value)? => {}
            name if OF_WRAPPER.contains(&name) => {}
            name if OF_LIBPQ.contains(&name) => {
                if name == "password" {
                    settled.has_password = !value.is_empty();
                }
                if name == "connect_timeout" {
                    settled.connect_timeout = match value.trim().parse::<i64>().ok()? {
                        ..=0 => 0,
                        // As libpq has it.
                        seconds => seconds.max(2).unsigned_abs(),
                    };
                }
                settled.keywords.push((name.to_owned(), value.clone()));
            }
            _ => return None,
        }
    }
    for (name, value) in [
        ("fallback_application_name", "copymatch"),
        ("client_encoding", encoding),
    ] {
        settled.keywords.push((name.to_owned(), value.to_owned()));
    }
    Some(settled)
}

/// As PostgreSQL reads the truth value of an option.
fn boolean(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "on" => Some(true),
        "false" | "off" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn what_concerns_the_connection_goes_to_libpq_and_the_mapping_last() {
        let server = options(&[
            ("host", "a"),
            ("extensions", "copymatch"),
            ("user", "x"),
            ("fetch_size", "10"),
        ]);
        let mapping = options(&[("user", "app"), ("password", "p")]);
        let settled = settle(&server, &mapping, "UTF8").unwrap();
        let names: Vec<(&str, &str)> = settled
            .keywords
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(
            names,
            [
                ("host", "a"),
                ("user", "x"),
                ("user", "app"),
                ("password", "p"),
                ("fallback_application_name", "copymatch"),
                ("client_encoding", "UTF8")
            ]
        );
        assert!(settled.has_password && settled.password_required && settled.connect_timeout == 0);
    }

    #[test]
    fn a_password_is_required_unless_the_mapping_says_otherwise() {
        let required = |server: &[_], mapping: &[_]| {
            settle(&options(server), &options(mapping), "UTF8").map(|settled| settled.password_required)
        };
        assert_eq!(required(&[], &[]), Some(true));
        assert_eq!(required(&[], &[("password_required", "true")]), Some(true));
        assert_eq!(required(&[], &[("password_required", "OFF")]), Some(false));
        // A server's owner must not say so, and what PostgreSQL would not read is nothing that is guessed at.
        assert_eq!(required(&[("password_required", "false")], &[]), None);
        assert_eq!(required(&[], &[("password_required", "nope")]), None);
        let empty = settle(&[], &options(&[("password", "")]), "UTF8").unwrap();
        assert!(!empty.has_password && empty.password_required);
    }

    #[test]
    fn what_is_not_known_here_is_left_to_postgres_fdw() {
        for (name, value) in [
            ("gssdelegation", "1"),
            ("gssdelegation", "true"),
            ("use_scram_passthrough", "true"),
            ("keep_connections", "off"),
            ("replication", "database"),
            ("client_encoding", "LATIN1"),
            ("fallback_application_name", "x"),
            ("some_day", "1"),
            ("connect_timeout", "soon"),
        ] {
            assert_eq!(settle(&options(&[(name, value)]), &[], "UTF8"), None, "{name} {value}");
        }
        for (name, value) in [
            ("gssdelegation", "0"),
            ("use_scram_passthrough", "false"),
            ("keep_connections", "on"),
        ] {
            assert!(
                settle(&options(&[(name, value)]), &[], "UTF8").is_some(),
                "{name} {value}"
            );
        }
    }

    #[test]
    fn a_timeout_is_as_libpq_takes_it() {
        let timeout = |value| {
            settle(&options(&[("connect_timeout", value)]), &[], "UTF8")
                .unwrap()
                .connect_timeout
        };
        assert_eq!([timeout("0"), timeout("-1"), timeout("1"), timeout("7")], [0, 0, 2, 7]);
    }
}
