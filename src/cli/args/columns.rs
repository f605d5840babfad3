//! Help in two columns: the flags to the left, what they mean to the right, broken at [`WIDTH`] cells.
//!
//! clap itself moves every text of a section below its flag as soon as the longest flag takes 40 % of the page. It does
//! so only where it breaks the lines; so they are broken here, and clap lays them out.

use clap::{Arg, Command};

use super::tree::WIDTH;
use crate::render::width::{cells, wrap};

/// Before a flag stands its letter or its room, and a gap on either side of the column.
const AROUND_FLAG: usize = 8;
/// An argument that has no name stands behind a gap.
const AROUND_ARGUMENT: usize = 4;

/// The command and all below it, with their texts broken.
pub fn set(command: Command) -> Command {
    // Only a built command knows what clap will show.
    let mut built = command.clone();
    built.build();
    broken(command, &built)
}

fn broken(command: Command, built: &Command) -> Command {
    let command = command.term_width(0).mut_args(|arg| {
        let Some(shown) = built.get_arguments().find(|shown| shown.get_id() == arg.get_id()) else { return arg };
        let Some(help) = arg.get_help().map(ToString::to_string) else { return arg };
        let room = WIDTH - column(shown, built);
        arg.help(wrap("", &help, room).join("\n"))
    });
    command.mut_subcommands(|below| match built.find_subcommand(below.get_name()) {
        Some(built) => broken(below, built),
        None => below,
    })
}

/// Where the texts of the section begin in which this one is shown.
fn column(arg: &Arg, built: &Command) -> usize {
    let beside = |other: &&Arg| {
        !other.is_hide_set()
            && other.is_positional() == arg.is_positional()
            && other.get_help_heading() == arg.get_help_heading()
    };
    let longest = built.get_arguments().filter(beside).map(|a| cells(&a.to_string())).max().unwrap_or(0);
    longest + if arg.is_positional() { AROUND_ARGUMENT } else { AROUND_FLAG }
}
