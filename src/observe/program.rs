//! Runs the node's own programs and takes what they print.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::model::GapReason;

/// The output of a program of the node.
///
/// # Errors
/// The program is missing, or what it said on stderr.
pub fn output(program: &str, args: &[&str]) -> Result<String, GapReason> {
    match Command::new(program).args(args).stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => Err(GapReason::Failed { message: String::from_utf8_lossy(&output.stderr).trim().to_owned() }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(GapReason::NoProgram { program: program.to_owned() })
        }
        Err(error) => Err(GapReason::Failed { message: error.to_string() }),
    }
}

/// What was printed as JSON.
///
/// # Errors
/// It is none.
pub fn json(text: &str) -> Result<Value, GapReason> {
    serde_json::from_str(text).map_err(|error| GapReason::Failed { message: error.to_string() })
}
