//! Where INDEX and LISTINDEX are: `mail_location` as Dovecot 2.3 reads it.
