//! `postgres://` URLs: one server each, typed, and never shown with their password.

use std::fmt;

use super::Secret;

/// How a connection is protected. PostgreSQL's `sslmode`, without the two that promise what they do not keep
/// (`allow`, `verify-ca`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// No TLS.
    Disable,
    /// TLS if the server offers it; the certificate is not checked.
    Prefer,
    /// TLS or no connection; the certificate is not checked.
    Require,
    /// TLS, the certificate and the host's name checked.
    VerifyFull,
}

/// Where and as whom to connect. Debug and Display show no password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresUrl {
    /// A name, an address, or the directory of a Unix socket if it starts with `/`.
    pub host: String,
    /// The port (5432 if none was given); for a socket, the number in its name.
    pub port: u16,
    /// The login role.
    pub user: String,
    /// Its password, if it needs one.
    pub password: Option<Secret>,
    /// The PostgreSQL database.
    pub dbname: String,
    /// Protection: `sslmode`, `prefer` if not given.
    pub tls: TlsMode,
    /// `application_name`, as pg_stat_activity shows it; None: the broker's own.
    pub application_name: Option<String>,
}

impl PostgresUrl {
    /// Parses `postgres://user:password@host:port/dbname?sslmode=…&application_name=…`. The host of a Unix
    /// socket is its directory, percent-encoded: `postgres://user@%2Fvar%2Frun%2Fpostgresql/dbname`.
    ///
    /// # Errors
    /// A sentence that says what to write; it never repeats the URL, which may hold a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"));
        let rest = rest.ok_or("is not a PostgreSQL URL; write postgres://user@host:5432/dbname")?;
        let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
        let (user_info, address) = authority.rsplit_once('@').unwrap_or(("", authority));
        if address.contains(',') {
            return Err("names several hosts; write one URL for each host".to_owned());
        }
        if user_info.contains('@') {
            return Err("has an unescaped `@` in its user or password; write it as %40".to_owned());
        }
        if address.is_empty() {
            return Err("names no host; for a Unix socket write its directory as the host: %2Fvar%2Frun%2Fpostgresql"
                .to_owned());
        }
        let url = ::url::Url::parse(text).map_err(|error| {
            format!("is not a URL ({error}); write special characters of the user or password as %XX")
        })?;
        if url.fragment().is_some() {
            return Err("has an unescaped `#`; write it as %23".to_owned());
        }
        let host = decode(url.host_str().unwrap_or_default())?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host).to_owned();
        let user = decode(url.username())?;
        if user.is_empty() {
            return Err("names no user; write postgres://user@host:5432/dbname".to_owned());
        }
        let dbname = decode(url.path().trim_start_matches('/'))?;
        if dbname.is_empty() {
            return Err("names no database; end it with /dbname".to_owned());
        }
        let password = url.password().map(decode).transpose()?.filter(|password| !password.is_empty()).map(Secret::new);
        let port = url.port().unwrap_or(5432);
        if port == 0 {
            return Err("has port 0; write the server's port, such as 5432".to_owned());
        }
        let mut parsed = Self { host, port, user, password, dbname, tls: TlsMode::Prefer, application_name: None };
        for (option, value) in url.query_pairs() {
            parsed.set_option(&option, &value)?;
        }
        Ok(parsed)
    }

    fn set_option(&mut self, option: &str, value: &str) -> Result<(), String> {
        match option {
            "sslmode" => {
                self.tls = match value {
                    "disable" => TlsMode::Disable,
                    "prefer" => TlsMode::Prefer,
                    "require" => TlsMode::Require,
                    "verify-full" => TlsMode::VerifyFull,
                    "allow" => return Err("has sslmode=allow; write prefer".to_owned()),
                    "verify-ca" => return Err("has sslmode=verify-ca; write verify-full".to_owned()),
                    _ => return Err("has an unknown sslmode; write disable, prefer, require or verify-full".to_owned()),
                }
            }
            "application_name" => self.application_name = Some(value.to_owned()),
            "connect_timeout" => return Err("has connect_timeout; set pool.connect_timeout instead".to_owned()),
            "sslrootcert" => {
                return Err("has sslrootcert; name the file in the variable SSL_CERT_FILE instead".to_owned());
            }
            "target_session_attrs" | "load_balance_hosts" => {
                return Err(format!("has {option}; leave it out: the broker finds roles by asking"));
            }
            "password" => return Err("has its password as an option; write postgres://user:password@host".to_owned()),
            _ => {
                return Err(format!("has the unknown option `{option}`; known are sslmode and application_name"));
            }
        }
        Ok(())
    }

    /// `host:port`, `[v6]:port` or `directory:port`: what tells servers apart.
    #[must_use]
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgres://{}@{}/{}", self.user, self.address(), self.dbname)
    }
}

/// Undoes percent-encoding.
fn decode(text: &str) -> Result<String, String> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte != b'%' {
            decoded.push(byte);
            at += 1;
            continue;
        }
        let digits = text.get(at + 1..at + 3).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(digits.ok_or("has a `%` without two hexadecimal digits; write `%` itself as %25")?);
        at += 3;
    }
    String::from_utf8(decoded).map_err(|_| "is not UTF-8 once its %XX are decoded".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts() {
        let url = PostgresUrl::parse(
            "postgres://ann%40x:p%40ss%2F%25@db.local:5433/my%20db?sslmode=require&application_name=a",
        )
        .unwrap();
        assert_eq!((url.host.as_str(), url.port, url.user.as_str()), ("db.local", 5433, "ann@x"));
        assert_eq!((url.password.as_ref().unwrap().expose(), url.dbname.as_str()), ("p@ss/%", "my db"));
        assert_eq!((url.tls, url.application_name.as_deref()), (TlsMode::Require, Some("a")));
    }

    #[test]
    fn defaults_and_shapes() {
        let url = PostgresUrl::parse("postgresql://ann@10.0.0.1/db").unwrap();
        assert_eq!((url.address().as_str(), url.tls, url.password), ("10.0.0.1:5432", TlsMode::Prefer, None));
        let socket = PostgresUrl::parse("postgres://ann@%2Fvar%2Frun%2Fpostgresql:5433/db").unwrap();
        assert_eq!((socket.host.as_str(), socket.port), ("/var/run/postgresql", 5433));
        let v6 = PostgresUrl::parse("postgres://ann@[::1]:5433/db").unwrap();
        assert_eq!((v6.host.as_str(), v6.address().as_str()), ("::1", "[::1]:5433"));
    }

    #[test]
    fn problems_say_what_to_do_and_never_repeat_the_url() {
        for (text, says) in [
            ("mysql://ann:hunter2@h/db", "PostgreSQL URL"),
            ("postgres://ann:hunter2@a:1,b:2/db", "one URL for each host"),
            ("postgres://ann:hunter2@h:99999/db", "port"),
            ("postgres://ann:hunter2@h:0/db", "port 0"),
            ("postgres://ann:hunter2@/db", "Unix socket"),
            ("postgres://ann:hunter2@h", "no database"),
            ("postgres://h/db", "no user"),
            ("postgres://ann:hunter2#@h/db", "special characters"),
            ("postgres://ann:hunter2@x@h/db", "%40"),
            ("postgres://ann:hunter2%zz@h/db", "%25"),
            ("postgres://ann:hunter2@h/db?sslmode=verify-ca", "verify-full"),
            ("postgres://ann:hunter2@h/db?sslmode=hunter2", "unknown sslmode"),
            ("postgres://ann:hunter2@h/db?connect_timeout=3", "pool.connect_timeout"),
            ("postgres://ann:hunter2@h/db?fetch=1", "`fetch`"),
        ] {
            let message = PostgresUrl::parse(text).unwrap_err();
            assert!(!message.contains("hunter2"), "{message}");
            assert!(message.contains(says), "{text}: {message}");
        }
    }

    #[test]
    fn nothing_printed_holds_the_password() {
        let url = PostgresUrl::parse("postgres://ann:hunter2@h/db").unwrap();
        assert_eq!(url.to_string(), "postgres://ann@h:5432/db");
        assert!(!format!("{url:?}").contains("hunter2"));
    }
}
