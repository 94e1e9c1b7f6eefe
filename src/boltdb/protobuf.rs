//! The part of the protobuf wire format that etcd's files use: messages of numbers and bytes (protobuf.dev,
//! "Encoding").

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldValue<'m> {
    Varint(u64),
    /// Bytes, a text, or a message.
    Bytes(&'m [u8]),
    /// 4 or 8 bytes, which no etcd message uses.
    Fixed,
}

/// The fields of a message with their numbers, in order.
///
/// Accepts only what both decoders of etcd accept: gogo/protobuf 1.3, from which 3.4 to 3.6 have generated code, and
/// google.golang.org/protobuf 1.36, `encoding/protowire`, which 3.7 uses. A field number is 1 to 2^29 - 1 (the former
/// truncates it to 32 bits, the latter rejects it), a number has at most ten bytes and 64 bits, a length ends within
/// the message, and there are no groups, which etcd never writes. The caller checks the types of known fields: the
/// former rejects a wrong type, the latter treats it as an unknown field.
#[derive(Clone, Debug)]
pub struct Fields<'m>(&'m [u8]);

impl<'m> Fields<'m> {
    /// Of `message`.
    #[must_use]
    pub const fn of(message: &'m [u8]) -> Self {
        Self(message)
    }

    fn next_field(&mut self) -> Result<(u64, FieldValue<'m>), Malformed> {
        const MAX_FIELD_NUMBER: u64 = (1 << 29) - 1;
        let tag = varint(&mut self.0)?;
        let number = Some(tag >> 3).filter(|number| (1..=MAX_FIELD_NUMBER).contains(number)).ok_or(Malformed)?;
        let value = match tag & 7 {
            0 => FieldValue::Varint(varint(&mut self.0)?),
            1 => self.skip(8)?,
            2 => {
                let length = usize::try_from(varint(&mut self.0)?).map_err(|_| Malformed)?;
                let (value, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
                self.0 = rest;
                FieldValue::Bytes(value)
            }
            5 => self.skip(4)?,
            _ => return Err(Malformed),
        };
        Ok((number, value))
    }

    fn skip(&mut self, length: usize) -> Result<FieldValue<'m>, Malformed> {
        self.0 = self.0.get(length..).ok_or(Malformed)?;
        Ok(FieldValue::Fixed)
    }
}

impl<'m> Iterator for Fields<'m> {
    type Item = Result<(u64, FieldValue<'m>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.next_field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'m> FieldValue<'m> {
    pub const fn number(self) -> Result<u64, Malformed> {
        match self {
            Self::Varint(value) => Ok(value),
            _ => Err(Malformed),
        }
    }

    pub const fn bytes(self) -> Result<&'m [u8], Malformed> {
        match self {
            Self::Bytes(value) => Ok(value),
            _ => Err(Malformed),
        }
    }
}

/// The number in the last field numbered `wanted`, if there is one.
pub fn number(message: &[u8], wanted: u64) -> Result<Option<u64>, Malformed> {
    last(message, wanted)?.map(FieldValue::number).transpose()
}

/// Like [`number`], for bytes.
pub fn bytes(message: &[u8], wanted: u64) -> Result<Option<&[u8]>, Malformed> {
    last(message, wanted)?.map(FieldValue::bytes).transpose()
}

/// All numbers in fields numbered `wanted`.
///
/// # Errors
/// If the message is malformed, or one of the fields holds something else.
pub fn numbers(message: &[u8], wanted: u64) -> Result<Vec<u64>, Malformed> {
    let mut found = Vec::new();
    for field in Fields::of(message) {
        match field? {
            (number, value) if number == wanted => found.push(value.number()?),
            _ => {}
        }
    }
    Ok(found)
}

fn last(message: &[u8], wanted: u64) -> Result<Option<FieldValue<'_>>, Malformed> {
    let mut found = None;
    for field in Fields::of(message) {
        let (number, value) = field?;
        if number == wanted {
            found = Some(value);
        }
    }
    Ok(found)
}

fn varint(message: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first().ok_or(Malformed)?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            // The tenth byte holds one bit.
            return if shift == 63 && *byte > 1 { Err(Malformed) } else { Ok(value) };
        }
    }
    Err(Malformed)
}

/// Encodes a message field by field, in the order of the calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message(Vec<u8>);

impl Message {
    /// A number; written even if it is 0, as etcd's generated code does for its log.
    #[must_use]
    pub fn number(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    #[must_use]
    pub fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

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

    #[test]
    fn what_one_of_the_decoders_of_etcd_refuses_is_malformed() {
        for (message, what) in [
            (&[0x00, 1][..], "field number 0"),
            (&[0x80, 0x80, 0x80, 0x80, 0x10, 1], "a field number of 30 bits"),
            (&[0x0a, 5, 1], "a length beyond the end"),
            (&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], "a length of 64 bits"),
            (&[0x10], "no number"),
            (&[0x10, 0x80], "a number that is cut off"),
            (&[0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], "a number of 65 bits"),
            (&[0x10, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0], "a number of eleven bytes"),
            (&[0x11, 1, 2, 3, 4, 5, 6, 7], "7 of 8 bytes"),
            (&[0x15, 1, 2, 3], "3 of 4 bytes"),
            (&[0x13, 0x14], "a group"),
            (&[0x14], "the end of a group"),
            (&[0x16], "type 6"),
            (&[0x17], "type 7"),
        ] {
            assert_eq!(Fields::of(message).last(), Some(Err(Malformed)), "{what}");
            let unknown: Vec<u8> = [&[0x08, 1], message].concat();
            assert!(number(&unknown, 1).is_err(), "{what}, after the wanted field");
        }
        let largest = [0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(number(&largest, 2), Ok(Some(u64::MAX)));
        // The last one counts, as in both decoders.
        assert_eq!(number(&[0x10, 1, 0x11, 1, 2, 3, 4, 5, 6, 7, 8, 0x10, 2], 2), Ok(Some(2)));
    }
}
