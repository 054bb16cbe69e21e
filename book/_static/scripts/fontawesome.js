/* Stands in the place of the theme's script of a megabyte and a half, which draws the icons that its own font and style
   sheet draw already. */
