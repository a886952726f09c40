//! Names of values on the wire and in settings, both directions from one list.

/// Gives an enum the names of its variants, and reads them.
macro_rules! names {
    ($type:ident: $($variant:ident = $name:literal),+) => {
        impl $type {
            /// Returns its name on the wire.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::ports::Error;

            fn from_str(text: &str) -> $crate::ports::Result<Self> {
                match text {
                    $($name => Ok(Self::$variant),)+
                    _ => Err($crate::ports::Error::invalid(format!("invalid value {text:?}; expected one of {}", [$($name),+].join(", ")))),
                }
            }
        }
    };
}

pub(crate) use names;
