/* Numbers that C and assembly share.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef PYLBR_NATIVE_NUMBERS_H
#define PYLBR_NATIVE_NUMBERS_H

#define NATIVE_SLOTS 128
#define HANDLER_SIZE 16 /* of the code of each of the handlers */

#endif
