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

/// All numbers in the fields numbered `wanted`.
///
/// # Errors
/// If the message is malformed, or one of the fields holds something else.
pub fn numbers(mut message: &[u8], wanted: u64) -> Result<Vec<u64>, Malformed> {
    let mut found = Vec::new();
    while let Some((field, value)) = next(&mut message)? {
        match value {
            Field::Number(value) if field == wanted => found.push(value),
            Field::Bytes(_) if field == wanted => return Err(Malformed),
            _ => {}
        }
    }
    Ok(found)
}

fn field(mut message: &[u8], wanted: u64) -> Result<Option<Field<'_>>, Malformed> {
    while let Some((field, value)) = next(&mut message)? {
        if field == wanted {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// The next field and its number.
fn next<'m>(message: &mut &'m [u8]) -> Result<Option<(u64, Field<'m>)>, Malformed> {
    if message.is_empty() {
        return Ok(None);
    }
    let tag = varint(message)?;
    let value = match tag & 7 {
        0 => Field::Number(varint(message)?),
        2 => {
            let length = usize::try_from(varint(message)?).map_err(|_| Malformed)?;
            let (value, rest) = message.split_at_checked(length).ok_or(Malformed)?;
            *message = rest;
            Field::Bytes(value)
        }
        _ => return Err(Malformed),
    };
    Ok(Some((tag >> 3, value)))
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

/// A message that is written field by field, in the order of the calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message(Vec<u8>);

impl Message {
    /// A number; written also when it is 0, as etcd's generated code does for its log.
    #[must_use]
    pub fn number(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    /// Bytes.
    #[must_use]
    pub fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    /// The encoded message.
    #[must_use]
    pub fn encoded(self) -> Vec<u8> {
        self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            // The low seven bits.
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(first: u64, second in proptest::collection::vec(any::<u8>(), 0..300), third: u64) {
            let message = Message::default().number(1, first).bytes(2, &second).number(20, third).encoded();
            prop_assert_eq!(number(&message, 1), Ok(Some(first)));
            prop_assert_eq!(bytes(&message, 2), Ok(Some(second.as_slice())));
            prop_assert_eq!(number(&message, 20), Ok(Some(third)));
            prop_assert_eq!(number(&message, 3), Ok(None));
        }
    }
}
