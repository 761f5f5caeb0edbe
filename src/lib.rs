//! Image copy detection inside PostgreSQL.
use pgrx::prelude::*;

::pgrx::pg_module_magic!(name, version);
