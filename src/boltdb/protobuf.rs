//! The little of protobuf's wire format that etcd's files need: messages of numbers and bytes (protobuf.dev, "Encoding").

/// Not a message of that kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The number in the first field numbered `wanted`, if there is one.
///
/// # Errors
/// If the message is malformed before it, or the field holds something else.
pub fn number(message: &[u8], wanted: u64) -> Result<Option<u64>, Malformed> {
    match field(message, wanted)? {
        Some(Field::Number(value)) => Ok(Some(value)),
        Some(Field::Bytes(_)) => Err(Malformed),
        None => Ok(None),
    }
}

/// As [`number`], for bytes.
///
/// # Errors
/// As [`number`].
pub fn bytes(message: &[u8], wanted: u64) -> Result<Option<&[u8]>, Malformed> {
    match field(message, wanted)? {
        Some(Field::Bytes(value)) => Ok(Some(value)),
        Some(Field::Number(_)) => Err(Malformed),
        None => Ok(None),
    }
}

fn field(mut message: &[u8], wanted: u64) -> Result<Option<Field<'_>>, Malformed> {
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let value = match tag & 7 {
            0 => Field::Number(varint(&mut message)?),
            2 => {
                let length = usize::try_from(varint(&mut message)?).map_err(|_| Malformed)?;
                let (value, rest) = message.split_at_checked(length).ok_or(Malformed)?;
                message = rest;
                Field::Bytes(value)
            }
            _ => return Err(Malformed),
        };
        if tag >> 3 == wanted {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

fn varint(message: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first().ok_or(Malformed)?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed)
}
