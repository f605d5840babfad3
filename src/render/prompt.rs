//! The questions asked before something is changed.

use crate::model::Text;

/// After the plan was shown.
pub fn fix() -> Text {
    Text::new("render.prompt.fix")
}

/// Before a fix is taken back.
pub fn undo() -> Text {
    Text::new("render.prompt.undo")
}
