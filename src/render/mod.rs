//! From values to what a person or a program reads. Pure: the writer is given, and so are the language and the colour.

pub mod diagnosis;
pub mod event;
pub mod evidence;
pub mod fixes;
pub mod json;
pub mod path;
pub mod plan;
pub mod prompt;
pub mod status;
pub mod style;
pub mod view;
pub mod width;

#[cfg(test)]
mod schema_tests;
#[cfg(test)]
mod tests;

pub use event::{Event, Level, Reboot};
pub use style::Style;
pub use view::Diagnosis;
