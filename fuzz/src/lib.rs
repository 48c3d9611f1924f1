//! What each fuzz target checks, as a function of its input: a map, one line a module. The targets (`targets/`) only
//! call them, and so does whoever wants to look into a finding with a debugger.

pub mod input; // bytes → numbers, texts, lists; and back, for the seeds
pub mod literal; // array and row literals, read back
pub mod memory; // a bound on what one check may allocate
pub mod params; // parameters
pub mod request; // messages and headers → typed requests, or failures
pub mod rows; // results
pub mod splitter; // a second reading of SQL's lexical rules, to compare with
pub mod statement; // what a statement's text says
pub mod token; // position tokens
pub mod types; // PostgreSQL types from a line of text
